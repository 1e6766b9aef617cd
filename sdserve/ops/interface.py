"""The Varlink interface of the control socket, derived from the table of commands and the types of their answers.

`varlinkctl introspect` shows it, and docs/reference has it as a file. Its name carries the version: additions keep it,
a change that would break a client needs a new one.
"""

from typing import TYPE_CHECKING

from sdserve import __version__
from sdserve.immutable import Immutable
from sdserve.ops.commands import COMMANDS, FAILURES, Command, Field

if TYPE_CHECKING:
    from typing import Any

NAME = "org.sdserve.Control1"
SERVICE_NAME = "org.varlink.service"
METHODS: dict[str, Command] = {command.name.capitalize(): command for command in COMMANDS if not command.hidden}
WORDS = {int: "int", float: "float", str: "string", bool: "bool", dict: "object"}
MORE = {
    "may": " With `more`, again and again.",
    "always": " Only with `more`.",
    "before": " With `more`, what it waits for comes first.",
}
TEXT = Field("text", str, "one line for people")

SERVICE_DESCRIPTION = """\
# The Varlink Service Interface is provided by every varlink service. It
# describes the service and the interfaces it implements.
interface org.varlink.service

# Get a list of all the interfaces a service provides and information
# about the implementation.
method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

# Get the description of an interface that is implemented by this service.
method GetInterfaceDescription(interface: string) -> (description: string)

# The requested interface was not found.
error InterfaceNotFound (interface: string)

# The requested method was not found
error MethodNotFound (method: string)

# The interface defines the requested method, but the service does not
# implement it.
error MethodNotImplemented (method: string)

# One of the passed parameters is invalid.
error InvalidParameter (parameter: string)

# Client is denied access
error PermissionDenied ()

# Method is expected to be called with 'more' set to true, but wasn't
error ExpectedMore ()
"""


def information() -> "dict[str, Any]":
    """What GetInfo gives."""
    url = "https://varlink.org"
    return {
        "vendor": "sdserve",
        "product": "sdserve",
        "version": __version__,
        "url": url,
        "interfaces": [SERVICE_NAME, NAME],
    }


def description() -> str:
    """The interface in Varlink's language (https://varlink.org/Interface-Definition)."""
    types: dict[str, type[Immutable]] = {}
    methods = []
    for name, command in METHODS.items():
        takes = ", ".join(_field(field, types) for field in command.takes)
        gives = ", ".join(_field(field, types) for field in (TEXT, *command.gives))
        more = MORE.get(command.streams, "")
        fails = f"\n# Fails with {', '.join(command.fails)}." if command.fails else ""
        about = f"{command.about[0].upper()}{command.about[1:]}.{more}{fails}"
        methods.append(f"# {about}\nmethod {name}({takes}) -> ({gives})")
    failures = [
        f"# {each.about}\nerror {each.name} ({', '.join(_field(field, types) for field in (TEXT, *each.fields))})"
        for each in FAILURES
    ]
    shapes = []
    for name, shape in types.items():
        fields = ",\n".join(f"  {field}: {word(kind, types)}" for field, kind in shape.__annotations__.items())
        about = (shape.__doc__ or "").partition("\n")[0].partition(". ")[0].rstrip(".")
        shapes.append(f"# {about}.\ntype {name} (\n{fields}\n)")
    head = "# sdserve's control socket: what sdservectl asks and commands. Times are seconds."
    return "\n\n".join([f"{head}\ninterface {NAME}", *shapes, *methods, *failures]) + "\n"


def _field(field: Field, types: dict[str, type[Immutable]]) -> str:
    return f"{field.name}: {word(field.kind, types)}"


def word(kind: "Any", types: dict[str, type[Immutable]]) -> str:
    """A Python type in Varlink's language. The value types that it is made of are added to `types`."""
    parts: tuple[Any, ...] = getattr(kind, "__args__", ())
    if type(None) in parts:
        [kind] = [part for part in parts if part is not type(None)]
        return f"?{word(kind, types)}"
    if getattr(kind, "__origin__", None) is tuple:
        return f"[]{word(parts[0], types)}"
    if isinstance(kind, type) and issubclass(kind, Immutable):
        name = kind.__name__ if kind.__name__ not in METHODS else f"Service{kind.__name__}"  # they share their names
        if name not in types:
            for inner in kind.__annotations__.values():
                word(inner, types)
            types[name] = kind
        return name
    return WORDS[kind]
