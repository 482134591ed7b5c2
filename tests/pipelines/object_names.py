"""What Beam's file systems of object stores have in common: names with slashes, and no folders."""

from collections.abc import Iterable, Iterator

from apache_beam.io import filesystem


class ObjectNames:
    """Beam's interface but for the objects themselves, which a store has in its own way."""

    def all_names(self) -> Iterable[str]:
        """Of every object."""
        raise NotImplementedError

    def move(self, old: str, new: str) -> None:
        """Gives an object another name."""
        raise NotImplementedError

    def remove(self, name: str) -> None:
        """Removes an object."""
        raise NotImplementedError

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
        return tuple(path.rsplit("/", 1))

    def has_dirs(self):
        return False

    def mkdirs(self, path):
        raise NotImplementedError("an object store has no folders")

    def _names(self, prefix):
        return sorted(name for name in self.all_names() if name.startswith(prefix))

    def _list(self, prefix) -> Iterator[filesystem.FileMetadata]:
        for name in self._names(prefix):
            yield self.metadata(name)

    def rename(self, sources, destinations):
        for old, new in zip(sources, destinations, strict=True):
            for name in self._names(old) if old.endswith("/") else [old]:
                self.move(name, name.replace(old, new, 1))

    def delete(self, paths):
        for path in paths:
            for name in self._names(path) if path.endswith("/") else [path]:
                self.remove(name)

    def copy(self, sources, destinations):
        raise NotImplementedError

    def last_updated(self, path):
        raise NotImplementedError

    def checksum(self, path):
        raise NotImplementedError

    def metadata(self, path):
        return filesystem.FileMetadata(path, self.size(path))
