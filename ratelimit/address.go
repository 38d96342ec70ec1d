package ratelimit

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

const (
	// forwardedMax is how many addresses of X-Forwarded-For are looked at; a real chain has a few.
	forwardedMax = 50
	// forwardedBytesMax is how much of it is looked at.
	forwardedBytesMax = 4096
	// forwardedTextMax is the longest address with brackets, zone and port.
	forwardedTextMax = 80
)

// Proxies are the networks whose X-Forwarded-For is believed.
type Proxies []netip.Prefix

// ParseProxies reads networks (10.0.0.0/8) and addresses. An error names the one that is neither.
func ParseProxies(texts []string) (Proxies, error) {
	p := make(Proxies, 0, len(texts))
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			addr, err := netip.ParseAddr(text)
			if err != nil || addr.Zone() != "" {
				return nil, fmt.Errorf("proxy %q: neither a network nor an address", text)
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		if addr := prefix.Addr(); addr.Is4In6() {
			if prefix.Bits() < 96 {
				return nil, fmt.Errorf("proxy %q: reaches beyond IPv4", text)
			}
			prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
		}
		p = append(p, prefix.Masked())
	}
	return p, nil
}

// Client is the address that a request comes from. It is the connection's, unless that is a trusted
// proxy: then it is the first address of X-Forwarded-For from the right that is not one, for everything
// left of that was written by whoever sent it. Where nothing more can be read, and where the list is
// longer than 50 addresses or 4 KiB, it is the last address that a trusted proxy told. Several header
// lines, in their order, are one list. The result is without zone, and IPv4 where it is mapped into IPv6.
func (p Proxies) Client(remote netip.Addr, forwardedFor ...[]byte) netip.Addr {
	client := remote.Unmap().WithZone("")
	entries, size := 0, 0
	for i := len(forwardedFor) - 1; i >= 0; i-- {
		for line, more := forwardedFor[i], true; more; {
			if !p.trust(client) {
				return client
			}
			var entry []byte
			at := bytes.LastIndexByte(line, ',')
			entry, more = line[at+1:], at >= 0
			line = line[:max(at, 0)]
			entries, size = entries+1, size+len(entry)+1
			if entries > forwardedMax || size > forwardedBytesMax {
				return client
			}
			if entry = bytes.Trim(entry, " \t"); len(entry) == 0 {
				continue // RFC 9110, 5.6.1: an empty element of a list is no element
			}
			addr, ok := parseForwarded(entry)
			if !ok {
				return client
			}
			client = addr
		}
	}
	return client
}

func (p Proxies) trust(addr netip.Addr) bool {
	for _, prefix := range p {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// parseForwarded reads an address as proxies write it: with a port or without, IPv6 in brackets or bare.
func parseForwarded(entry []byte) (netip.Addr, bool) {
	if len(entry) > forwardedTextMax {
		return netip.Addr{}, false
	}
	text := string(entry)
	addr, err := netip.ParseAddr(text)
	if err != nil {
		bare, opened := strings.CutPrefix(text, "[")
		bare, closed := strings.CutSuffix(bare, "]")
		if opened && closed {
			addr, err = netip.ParseAddr(bare)
			if err == nil && !addr.Is6() {
				return netip.Addr{}, false
			}
		} else {
			var with netip.AddrPort
			with, err = netip.ParseAddrPort(text)
			addr = with.Addr()
		}
	}
	return addr.Unmap().WithZone(""), err == nil
}

// keyBits is the network that one subscriber has in IPv6, and can choose any address of.
const keyBits = 64

// Key is the text that limits count an address by: an IPv4 address whole, of IPv6 its /64
// (2001:db8:1:2::/64), and "" of the zero Addr.
func Key(addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	switch {
	case !addr.IsValid():
		return ""
	case addr.Is4():
		return addr.String()
	}
	return netip.PrefixFrom(addr, keyBits).Masked().String()
}

// ErrAddress says that a text is no IP address.
var ErrAddress = errors.New("not an IP address")

// ParseKey is the Key of an address that an API key names, without port. The error is ErrAddress.
func ParseKey(text string) (string, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return "", ErrAddress
	}
	return Key(addr), nil
}
