// Allot-portal runs the portal: allot-portal CONFIG, with the listening socket as file descriptor 3. SIGHUP makes it read
// CONFIG again, SIGTERM ends it when the requests under way are done. It needs a user of its own. Of the file system it can read
// what lies beside the folder that CONFIG is in, as far as that user may, and change the folder that CONFIG names as its state.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"allotment/init/confine"
	"allotment/portal"
	"allotment/portal/config"
)

const (
	listenFD    = 3
	memoryLimit = 48 << 20 // bytes; the collector works harder near it
	goodbye     = 5 * time.Second
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: allot-portal CONFIG, with the listening socket as file descriptor 3")
		os.Exit(2)
	}
	if err := run(os.Args[1], log); err != nil {
		log.Error("portal ends", "error", err)
		os.Exit(1)
	}
}

func run(path string, log *slog.Logger) error {
	var current atomic.Pointer[config.Config]
	if err := read(path, &current); err != nil {
		return err
	}
	x509.SystemCertPool()                      // which is kept: its files are out of reach afterwards
	beside := filepath.Dir(filepath.Dir(path)) // of the portal's own folder, secrets, and resolv.conf
	if err := confine.Self(beside, memoryLimit, current.Load().State); err != nil {
		return err
	}
	p, err := portal.Open(func() config.Config { return *current.Load() }, time.Now, log)
	if err != nil {
		return err
	}
	defer p.Close()
	listener, err := net.FileListener(os.NewFile(listenFD, "listener"))
	if err != nil {
		return fmt.Errorf("cannot use file descriptor %d as a listener: %w", listenFD, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go p.Run(ctx)
	server := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 32 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	done := make(chan struct{})
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGHUP, unix.SIGTERM)
	go func() {
		obey(signals, server, func() error { return read(path, &current) }, log)
		close(done)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-done // Serve returns when the end begins
	return nil
}

func read(path string, into *atomic.Pointer[config.Config]) error {
	c, err := config.Read(path)
	if err == nil {
		into.Store(&c)
	}
	return err
}

// obey follows signals until one ends the server.
func obey(signals <-chan os.Signal, server *http.Server, read func() error, log *slog.Logger) {
	for s := range signals {
		if s == unix.SIGTERM {
			ctx, cancel := context.WithTimeout(context.Background(), goodbye)
			defer cancel()
			server.Shutdown(ctx)
			return
		}
		if err := read(); err != nil {
			log.Error("keeping the former configuration", "error", err)
		}
	}
}
