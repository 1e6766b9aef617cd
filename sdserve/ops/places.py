"""Where an application writes to, and which of those places `sdserve unit` lets it have.

What the application says of them is its owner's word, and install.sh is run by root. So nobody gets by it what was not
theirs: no directory of the system becomes the service's, and no service runs as somebody else than the project's owner,
because a project names a place there.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A directory that the service writes to, or a file, whose directory it writes to as well. Owner "" is root.

    real: the path without symbolic links; new: whether its directory is missing, so that install.sh makes it.
    """

    path: str
    owner: str
    is_file: bool = False
    directory_owner: str = ""
    real: str = ""
    new: bool = False

    @property
    def directory(self) -> str:
        """The one that it writes to."""
        return (self.path.rpartition("/")[0] or "/") if self.is_file else self.path

    @property
    def owners(self) -> set[str]:
        """Whose it is: of the file, and of what that lies in."""
        return {self.owner, self.directory_owner} if self.is_file else {self.owner}


@dataclass(frozen=True)
class Project:
    """Whose word counts: the project's directory, without symbolic links, its owner, and whom --user names."""

    directory: str
    owner: str
    user: str = ""

    def may_have(self, place: Place) -> bool:
        """Whether its service gets a place that its application names.

        A project of root's has what lies in it, what is others' already, and what is made for it; and, where no owner
        changes, as with --user, anything. Any other project has what is its owner's already.
        """
        if self.owner:
            return place.owners == {self.owner}
        inside = self.directory != "/" and f"{place.real}/".startswith(f"{self.directory}/")
        return inside or place.new or "" not in place.owners or bool(self.user)
