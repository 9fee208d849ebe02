package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// greeting is what every port says to whoever connects.
const greeting = "you reached the probe\n"

// wait bounds each attempt to reach somebody.
const wait = 3 * time.Second

// offerPorts listens on the ports that others try to reach, IPv4 and IPv6 alike.
func offerPorts() error {
	for _, port := range []string{"7001", "7002"} {
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "%s%s\n", greeting, c.RemoteAddr())
				c.Close()
			}
		}()
	}
	u, err := net.ListenPacket("udp", ":7003")
	if err != nil {
		return err
	}
	go func() {
		for b := make([]byte, 64); ; {
			_, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			u.WriteTo([]byte(greeting), from)
		}
	}()
	return nil
}

func networkAttempts() []attempt {
	return []attempt{
		{"tcp", reachTCP},
		{"udp", reachUDP},
		{"spoof", spoof},
		{"link-local", func([]string) (string, error) { return linkLocal() }},
		{"resolve", resolve},
		{"socket-raw", socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)},
		{"socket-raw6", socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)},
		{"socket-ping", socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)},
		{"socket-packet", socket(unix.AF_PACKET, unix.SOCK_RAW, 0x0300)},
		{"socket-alg", socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0)},
		{"socket-vsock", socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)},
		{"socket-netfilter", socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER)},
		{"socket-uevent", socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT)},
		{"socket-route", socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)},
	}
}

// reachTCP connects to HOST:PORT and reads what it says first, if it says something.
func reachTCP(args []string) (string, error) {
	c, err := net.DialTimeout("tcp", args[0], wait)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(wait))
	b, _ := io.ReadAll(io.LimitReader(c, 256)) // a service that waits for us to speak was reached all the same
	return string(b), nil
}

// reachUDP sends a datagram to HOST:PORT, from the address SOURCE if one is given, and waits for an answer.
func reachUDP(args []string) (string, error) {
	c, err := net.DialTimeout("udp", args[0], wait)
	if err != nil {
		return "", err
	}
	defer c.Close()
	// A question for the address of localhost (RFC 1035), which name servers answer and the probe's own port as well.
	if _, err := c.Write([]byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x09localhost\x00\x00\x01\x00\x01")); err != nil {
		return "", err
	}
	c.SetReadDeadline(time.Now().Add(wait))
	b := make([]byte, 512)
	n, err := c.Read(b)
	return string(b[:n]), err
}

// spoof connects to HOST:PORT by TCP from the address SOURCE, which is another module's.
func spoof(args []string) (string, error) {
	source := net.ParseIP(args[1])
	d := net.Dialer{Timeout: wait, LocalAddr: &net.TCPAddr{IP: source}, Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		c.Control(func(fd uintptr) {
			if source.To4() != nil {
				err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
			} else {
				err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
			}
		})
		return err
	}}
	c, err := d.Dial("tcp", args[0])
	if err != nil {
		return "", err
	}
	c.Close()
	return "connected", nil
}

// linkLocal tells the link-local address of the module's own interface, which no rule on its other addresses stops.
func linkLocal() (string, error) {
	links, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, l := range links {
		addrs, err := l.Addrs()
		if err != nil {
			return "", err
		}
		for _, a := range addrs {
			if ip, ok := a.(*net.IPNet); ok && l.Flags&net.FlagLoopback == 0 && ip.IP.To4() == nil && ip.IP.IsLinkLocalUnicast() {
				return ip.IP.String() + "%" + l.Name, nil
			}
		}
	}
	return "", errors.New("there is none")
}

// resolve asks the module's name servers for a name.
func resolve(args []string) (string, error) {
	addrs, err := net.LookupHost(args[0])
	return strings.Join(addrs, " "), err
}

func socket(family, kind, protocol int) func([]string) (string, error) {
	return func([]string) (string, error) {
		fd, err := unix.Socket(family, kind, protocol)
		if err != nil {
			return "", err
		}
		return "opened", unix.Close(fd)
	}
}
