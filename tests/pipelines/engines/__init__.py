"""The data set job on engines that are programs of their own: `make test-engines`."""
