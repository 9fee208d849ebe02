// Allot-resolver runs the resolver: allot-resolver CONFIG, with the sockets of resolver.Listen as file descriptors 3 to 6.
// SIGHUP makes it read CONFIG again, SIGTERM ends it. It needs a user of its own, who can read the folder that CONFIG is in;
// nothing else of the file system is open to it.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"

	"allotment/init/confine"
	"allotment/init/resolver"
)

const (
	firstFD     = 3
	sockets     = 4
	memoryLimit = 24 << 20 // bytes; the collector works harder near it
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: allot-resolver CONFIG, with UDP and TCP sockets of IPv4 and IPv6 as file descriptors 3 to 6")
		os.Exit(2)
	}
	if err := run(os.Args[1], log); err != nil {
		log.Error("resolver ends", "error", err)
		os.Exit(1)
	}
}

func run(path string, log *slog.Logger) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, unix.SIGHUP)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	if err := confine.Self(filepath.Dir(path), memoryLimit); err != nil {
		return err
	}
	c, err := resolver.ReadConfig(path)
	if err != nil {
		return err
	}
	r, err := resolver.New(c, resolver.DefaultLimits(), log)
	if err != nil {
		return err
	}
	go follow(hangups, r, path, log)
	var files []*os.File
	for fd := firstFD; fd < firstFD+sockets; fd++ {
		files = append(files, os.NewFile(uintptr(fd), "socket"))
	}
	return r.Serve(ctx, files)
}

// follow reads the configuration again when it is told to.
func follow(hangups <-chan os.Signal, r *resolver.Resolver, path string, log *slog.Logger) {
	for range hangups {
		c, err := resolver.ReadConfig(path)
		if err == nil {
			err = r.SetConfig(c)
		}
		if err != nil {
			log.Error("keeping the former configuration", "error", err)
		}
	}
}
