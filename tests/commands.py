"""Runs a command's `main` in this process, as `cli.run` does, from default flags."""

from sitn_tf import cli


def run_main(module, *flags):
    """Returns the command's status; raises InputError where the command would print one."""
    for name in module.FLAGS:
        module.FLAGS[name].unparse()
    return module.main(cli.parse(module.FLAGS, [module.__name__, *flags]))
