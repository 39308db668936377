from ipaddress import ip_address

import pytest

from app.webhooks.addresses import is_loopback, literal, refusal

PRIVATE = {
    "127.0.0.1": "loopback", "127.255.255.254": "loopback", "::1": "loopback", "::ffff:127.0.0.1": "loopback",
    "64:ff9b::7f00:1": "loopback", "10.0.0.1": "private", "172.16.0.1": "private", "172.31.255.255": "private",
    "192.168.1.1": "private", "::ffff:10.1.2.3": "private", "64:ff9b::a00:1": "private", "fd12::1": "private",
    "100.64.0.1": "shared by a provider's customers",
}
NEVER = {
    "0.0.0.0": "no host's",  # noqa: S104 - refused, not bound to
    "::": "reserved", "::7f00:1": "reserved", "169.254.169.254": "link-local",
    "::ffff:169.254.169.254": "link-local", "64:ff9b::a9fe:a9fe": "link-local", "fe80::1": "link-local",
    "fe80::1%eth0": "link-local", "168.63.129.16": "a cloud's metadata service",
    "100.100.100.200": "a cloud's metadata service", "fd00:ec2::254": "a cloud's metadata service",
    "192.0.0.192": "reserved", "198.18.0.1": "reserved for benchmarks", "203.0.113.9": "reserved for documentation",
    "224.0.0.1": "multicast", "255.255.255.255": "reserved", "ff02::1": "multicast", "2002:7f00:1::": "6to4",
    "2001:0:7f00:1::": "reserved", "64:ff9b:1::1": "a local translation to IPv4", "fec0::1": "reserved",
    "2001:db8::1": "reserved for documentation", "100::1": "reserved", "192.88.99.1": "a 6to4 relay",
}
PUBLIC = ["1.1.1.1", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1", "2606:4700::1111",
          "::ffff:1.1.1.1", "64:ff9b::101:101"]


@pytest.mark.parametrize(("address", "word"), [*PRIVATE.items(), *NEVER.items()])
def test_an_address_off_the_internet_is_refused(address: str, word: str) -> None:
    assert refusal(ip_address(address), allow_private=False) == word


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_on_the_internet_is_not(address: str) -> None:
    assert refusal(ip_address(address), allow_private=False) is None


@pytest.mark.parametrize("address", PRIVATE)
def test_private_ones_may_be_allowed(address: str) -> None:
    assert refusal(ip_address(address), allow_private=True) is None


@pytest.mark.parametrize(("address", "word"), NEVER.items())
def test_others_never_are(address: str, word: str) -> None:
    assert refusal(ip_address(address), allow_private=True) == word


@pytest.mark.parametrize(
    ("host", "address"),
    [("localhost", "127.0.0.1"), ("LOCALHOST.", "127.0.0.1"), ("a.localhost", "127.0.0.1"), ("[::1]", "::1"),
     ("10.0.0.1", "10.0.0.1"), ("example.com", None), ("localhost.example.com", None)],
)
def test_a_host_that_is_an_address_is_seen_as_one(host: str, address: str | None) -> None:
    assert literal(host) == (address and ip_address(address))


def test_loopback_is_told_in_disguise_too() -> None:
    assert [is_loopback(ip_address(text)) for text in ("::ffff:127.0.0.1", "::1", "10.0.0.1")] == [True, True, False]
