package apiserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// The virtio port is there when the kernel's driver has found it, which may be a little after the supervisor's start.
const (
	portPause    = 2 * time.Second
	portAttempts = 30
)

// Listen answers on the unix socket at path and on the virtio port, if the machine has one, until ctx ends.
func (s *Server) Listen(ctx context.Context, path string, log *slog.Logger) {
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	go func() {
		l, err := awaitPort(ctx)
		if l != nil {
			err = s.Serve(l)
		}
		s.report(log, "the api's port is closed", err)
	}()
	l, err := ListenUnix(path)
	if err == nil {
		err = s.Serve(l)
	}
	s.report(log, "the api's socket is closed", err)
}

func (s *Server) report(log *slog.Logger, what string, err error) {
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		log.Error(what, "error", err)
	}
}

// awaitPort returns nil where no port came in time.
func awaitPort(ctx context.Context) (net.Listener, error) {
	pause := time.NewTicker(portPause)
	defer pause.Stop()
	for range portAttempts {
		if l, err := ListenPort("/sys/class/virtio-ports", "/dev"); l != nil || err != nil {
			return l, err
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return nil, nil
		}
	}
	return nil, nil
}
