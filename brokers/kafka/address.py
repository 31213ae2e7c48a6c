"""Parse a `kafka://` URL: the servers, and how to speak to them."""

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote

from brokers.errors import BrokerConfigurationError

DEFAULT_PORT = 9092
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ALLOWED: dict[str, Sequence[str]] = {
    "security_protocol": _PROTOCOLS,
    "sasl_mechanism": _MECHANISMS,
    "ssl_cafile": (),
    "client_id": (),
    "prefix": (),
}


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """Where a Kafka is and how to speak to it.

    Attributes:
        servers: each as host:port.
        options: settings of the connection, by kafka-python's names.
        prefix: stands before every name of a topic or group on the servers, so that several
            installations can share one Kafka.
    """

    servers: tuple[str, ...]
    options: dict[str, str] = field(default_factory=dict, repr=False)
    prefix: str = ""

    def named(self, name: str) -> str:
        """Return the name of a topic or group on the servers: with the prefix."""
        return self.prefix + name

    def __str__(self) -> str:
        """Return the servers, without user and password."""
        return ",".join(self.servers)


def parse_address(parts: SplitResult) -> KafkaAddress:
    """Parse `kafka://[user:password@]host:port[,host:port…][?option=value…]`.

    Args:
        parts: the URL, split; `netloc` may name several servers.

    Raises:
        BrokerConfigurationError: the URL cannot be used; the error never shows the password.
    """
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise BrokerConfigurationError(
            "the kafka:// URL cannot be read: write special characters of user and password "
            "percent-encoded"
        )
    credentials, _, hosts = parts.netloc.rpartition("@")
    if parts.path.strip("/") or parts.fragment:
        raise BrokerConfigurationError(
            f"kafka://{hosts} takes no path; the topics are named elsewhere"
        )
    servers = tuple(_server(host) for host in hosts.split(","))
    options = _options(parts.query)
    prefix = options.pop("prefix", "")
    return KafkaAddress(servers, options | _security(credentials, options), prefix)


def _server(text: str) -> str:
    host, port = text, str(DEFAULT_PORT)
    if not text.endswith("]") and ":" in text:
        host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or (bare == host and ":" in host):
        raise BrokerConfigurationError(f"the Kafka server {text!r} is not host:port")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise BrokerConfigurationError(f"the Kafka server {text!r} has no usable port")
    return f"{host}:{port}"


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(options) - set(_ALLOWED))
    if unknown:
        raise BrokerConfigurationError(
            f"a kafka:// URL has no option {', '.join(unknown)}; it has: {', '.join(_ALLOWED)}"
        )
    for name, value in options.items():
        choices = _ALLOWED[name]
        if not value or (choices and value not in choices):
            raise BrokerConfigurationError(
                f"the kafka:// URL has {name}={value}; it takes: {', '.join(choices) or 'a value'}"
            )
    if "prefix" in options and not _PREFIX.fullmatch(options["prefix"]):
        raise BrokerConfigurationError(
            f"the kafka:// URL has prefix={options['prefix']}; "
            "it takes up to 64 letters, digits, '.', '_', '-'"
        )
    if "ssl_cafile" in options:
        _check_certificates(options["ssl_cafile"])
    return options


def _check_certificates(path: str) -> None:
    """Check a file of certificates at the start: kafka-python reads it only when it connects.

    Where the file is wrong, its connection then never answers.
    """
    if not Path(path).is_file():
        raise BrokerConfigurationError(f"there is no ssl_cafile {path}")
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:
        raise BrokerConfigurationError(
            f"the ssl_cafile {path} holds no certificate that can be read: {error.strerror}"
        ) from error


def _security(credentials: str, options: dict[str, str]) -> dict[str, str]:
    """Choose SASL where there are credentials, under TLS unless the URL says otherwise."""
    protocol = options.get("security_protocol", "SASL_SSL" if credentials else "PLAINTEXT")
    if protocol.startswith("SASL") != bool(credentials):
        needs = "user:password@" if not credentials else "a security_protocol with SASL"
        raise BrokerConfigurationError(f"the kafka:// URL with {protocol} also needs {needs}")
    if not credentials:
        return {"security_protocol": protocol}
    user, _, password = credentials.partition(":")
    return {
        "security_protocol": protocol,
        "sasl_mechanism": options.get("sasl_mechanism", "PLAIN"),
        "sasl_plain_username": unquote(user),
        "sasl_plain_password": unquote(password),
    }
