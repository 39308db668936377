"""Which addresses a webhook may be sent to. Networks are IANA's special-purpose registries, read in November 2026."""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Networks = Mapping[IPv4Network | IPv6Network, str]


def _networks(named: Mapping[str, str]) -> Networks:
    return {ip_network(network): word for network, word in named.items()}


# Nobody's receiver is here, whatever the operator allows.
_NEVER = _networks({
    "0.0.0.0/8": "no host's",
    "100.100.100.200/32": "a cloud's metadata service",
    "168.63.129.16/32": "a cloud's metadata service",
    "169.254.0.0/16": "link-local",
    "192.0.0.0/24": "reserved",
    "192.0.2.0/24": "reserved for documentation",
    "192.88.99.0/24": "a 6to4 relay",
    "198.18.0.0/15": "reserved for benchmarks",
    "198.51.100.0/24": "reserved for documentation",
    "203.0.113.0/24": "reserved for documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
    "64:ff9b:1::/48": "a local translation to IPv4",
    "2001::/23": "reserved",  # Teredo and other tunnels too
    "2001:db8::/32": "reserved for documentation",
    "2002::/16": "6to4",
    "3fff::/20": "reserved for documentation",
    "fd00:ec2::/32": "a cloud's metadata service",
    "fe80::/10": "link-local",
    "ff00::/8": "multicast",
})
_PRIVATE = _networks({
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared by a provider's customers",
    "127.0.0.0/8": "loopback",
    "172.16.0.0/12": "private",
    "192.168.0.0/16": "private",
    "::1/128": "loopback",
    "fc00::/7": "private",
})
_GLOBAL_IPV6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_IPV4_BITS = 0xFFFF_FFFF


def refusal(address: Address, *, allow_private: bool) -> str | None:
    """What is wrong with sending to this address, in a few words; None when nothing is.

    `allow_private` lets loopback and private networks pass, and nothing else.
    """
    meant = _embedded(address)
    never = _found(_NEVER, meant)
    if never is not None:
        return never
    private = _found(_PRIVATE, meant)
    if private is not None:
        return None if allow_private else private
    if isinstance(meant, IPv6Address) and meant not in _GLOBAL_IPV6:
        return "reserved"
    return None


def is_loopback(address: Address) -> bool:
    """Whether the address is this machine's own."""
    return _embedded(address).is_loopback


def literal(host: str) -> Address | None:
    """The address that a URL's host is; None where it is a name. `localhost` is an address by another name."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return IPv4Address("127.0.0.1")
    try:
        return ip_address(name.strip("[]"))
    except ValueError:
        return None


def _embedded(address: Address) -> Address:
    """The IPv4 address that packets to this one end at; the address itself where it is no other in disguise."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & _IPV4_BITS)
    return address


def _found(networks: Networks, address: Address) -> str | None:
    return next((word for network, word in networks.items() if address in network), None)
