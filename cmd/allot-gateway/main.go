// Allot-gateway runs the gateway: allot-gateway CONFIG, with the listening socket as file descriptor 3. SIGHUP
// makes it read CONFIG again, SIGTERM ends it when the requests under way are done. It needs a user of its own, who can
// read the folder that CONFIG is in; nothing else of the file system is open to it.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"allotment/gateway"
	"allotment/init/confine"
)

const (
	listenFD    = 3
	memoryLimit = 48 << 20 // bytes; the collector works harder near it
	goodbye     = 5 * time.Second
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: allot-gateway CONFIG, with the listening socket as file descriptor 3")
		os.Exit(2)
	}
	if err := run(os.Args[1], log); err != nil {
		log.Error("gateway ends", "error", err)
		os.Exit(1)
	}
}

func run(path string, log *slog.Logger) error {
	if err := confine.Self(filepath.Dir(path), memoryLimit); err != nil {
		return err
	}
	c, err := gateway.ReadConfig(path)
	if err != nil {
		return err
	}
	limits := gateway.DefaultLimits()
	g, err := gateway.New(c, limits, log)
	if err != nil {
		return err
	}
	listener, err := net.FileListener(os.NewFile(listenFD, "listener"))
	if err != nil {
		return fmt.Errorf("cannot use file descriptor %d as a listener: %w", listenFD, err)
	}
	server := g.Server()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGHUP, unix.SIGTERM)
	done := make(chan struct{})
	go func() {
		obey(signals, server, g, path, log)
		close(done)
	}()
	if err := server.Serve(gateway.Limit(listener, limits)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-done // Serve returns when the end begins
	return nil
}

// obey follows signals until one ends the server.
func obey(signals <-chan os.Signal, server *http.Server, g *gateway.Gateway, path string, log *slog.Logger) {
	for s := range signals {
		if s == unix.SIGTERM {
			ctx, cancel := context.WithTimeout(context.Background(), goodbye)
			defer cancel()
			server.Shutdown(ctx)
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
