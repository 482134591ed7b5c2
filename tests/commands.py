"""Runs a command's `main` in this process, as `cli.run` does, from default flags."""

from sitn_tf import cli
from sitn_tf.errors import InputError


def run_main(module, *flags):
    """Returns the command's status; raises InputError where the command would print one."""
    for name in module.FLAGS:
        module.FLAGS[name].unparse()
    try:
        return module.main(cli.parse(module.FLAGS, [module.__name__, *flags]))
    except InputError as error:
        raise cli.in_flags(error, module.FLAGS) from error
