// Allot-gateway runs the gateway: allot-gateway CONFIG, with the listening sockets as file descriptors: 3 for HTTP,
// and if CONFIG names a folder for certificates 4 for HTTPS and 5, of UDP, for HTTP/3. SIGHUP makes it read CONFIG
// again, SIGTERM ends it when the requests under way are done. It needs a user of its own, who can read the folder
// that CONFIG is in; of the file system nothing is open to it but that and the folder for certificates.
package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"allotment/gateway"
	"allotment/gateway/proxy"
	"allotment/init/confine"
)

const (
	plainFD = 3 + iota
	tlsFD
	quicFD
)

const memoryLimit = 48 << 20 // bytes; the collector works harder near it

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: allot-gateway CONFIG, with the listening sockets as file descriptors 3 to 5")
		os.Exit(2)
	}
	if err := run(os.Args[1], log); err != nil {
		log.Error("gateway ends", "error", err)
		os.Exit(1)
	}
}

func run(path string, log *slog.Logger) error {
	c, err := gateway.ReadConfig(path)
	if err != nil {
		return err
	}
	var data []string
	if c.Data != "" {
		data = []string{c.Data}
		x509.SystemCertPool() // which is kept: its files are out of reach afterwards
	}
	if err := confine.Self(filepath.Dir(path), memoryLimit, data...); err != nil {
		return err
	}
	g, err := proxy.New(c, proxy.DefaultLimits(), log)
	if err != nil {
		return err
	}
	s, err := sockets(c.Data != "")
	if err != nil {
		return err
	}
	ctx, end := context.WithCancel(context.Background())
	defer end()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGHUP, unix.SIGTERM)
	go func() {
		obey(signals, g, path, log)
		end()
	}()
	return g.Serve(ctx, s)
}

func sockets(secure bool) (s proxy.Sockets, err error) {
	if s.Plain, err = net.FileListener(os.NewFile(plainFD, "HTTP")); err != nil || !secure {
		return s, wrap(plainFD, err)
	}
	if s.TLS, err = net.FileListener(os.NewFile(tlsFD, "HTTPS")); err != nil {
		return s, wrap(tlsFD, err)
	}
	s.QUIC, err = net.FilePacketConn(os.NewFile(quicFD, "HTTP/3"))
	return s, wrap(quicFD, err)
}

func wrap(fd int, err error) error {
	if err != nil {
		return fmt.Errorf("cannot use file descriptor %d to listen: %w", fd, err)
	}
	return nil
}

// obey follows signals until one is the end.
func obey(signals <-chan os.Signal, g *proxy.Gateway, path string, log *slog.Logger) {
	for s := range signals {
		if s == unix.SIGTERM {
			return
		}
		c, err := gateway.ReadConfig(path)
		if err == nil {
			err = g.SetConfig(c)
		}
		if err != nil {
			log.Error("keeping the former routes", "error", err)
		}
	}
}
