package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"allotment/api"
	"allotment/internal/limit"
)

// Bounds of what callers may ask for.
const (
	mostConnections = 32
	mostStreams     = 64               // requests at once on one connection
	mostBody        = 1 << 20          // bytes of a request, unless it streams
	bodyTime        = 30 * time.Second // until such a body must be there
	headerTime      = 10 * time.Second
	idleTime        = 5 * time.Minute
	answerTime      = 10 * time.Minute // of an answer that does not stream; switching and settings wait for services
)

// Config is what a Server works with.
type Config struct {
	Box       Box
	Developer Developer             // nil unless the image is a developer image
	Access    map[uint32]api.Access // by the host's user id of who connects to the socket; root is the owner; others are public
	Routes    map[uint32][]string   // by the same, patterns of routes that a user may use whatever its class is
}

// Server answers the API.
type Server struct {
	config Config
	http   http.Server
}

// New makes a server; it fails if a route of the table has no handler.
func New(c Config) (*Server, error) {
	s := &Server{config: c}
	handlers := s.handlers()
	mux := http.NewServeMux()
	for _, r := range api.Routes() {
		h := handlers[r.Pattern()]
		if h == nil {
			return nil, fmt.Errorf("cannot serve the api: nothing handles %s", r.Pattern())
		}
		mux.Handle(r.Pattern(), s.guard(r, h))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, api.Errorf(api.NotFound, "there is no route %s %s", r.Method, r.URL.Path))
	})
	s.http = http.Server{
		Handler: mux, ConnContext: s.connContext, Protocols: new(http.Protocols),
		ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: 16 << 10,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: mostStreams, MaxReceiveBufferPerConnection: 1 << 20,
			MaxReceiveBufferPerStream: 256 << 10},
	}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetUnencryptedHTTP2(true)
	return s, nil
}

// Serve answers those who connect to the listener until it fails or Close. It can be called for several listeners; who
// does not come over a unix socket is the owner.
func (s *Server) Serve(l net.Listener) error {
	return s.http.Serve(limit.Listen(l, limit.Bounds{Total: mostConnections, PerClient: mostConnections}))
}

// Close ends all connections and listeners.
func (s *Server) Close() error { return s.http.Close() }

// Keys of what a connection's context says of who connected.
type (
	accessKey struct{} // api.Access
	routesKey struct{} // []string: of Config.Routes
)

func (s *Server) connContext(ctx context.Context, c net.Conn) context.Context {
	class, routes := s.access(c)
	return context.WithValue(context.WithValue(ctx, accessKey{}, class), routesKey{}, routes)
}

// access is the class of whoever connected, and the routes that it may use besides.
func (s *Server) access(c net.Conn) (api.Access, []string) {
	if l, ok := c.(interface{ NetConn() net.Conn }); ok { // of package limit
		c = l.NetConn()
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return api.Owner, nil
	}
	uid, err := peer(u)
	if err != nil {
		return api.Public, nil
	}
	return s.class(uid), s.config.Routes[uid]
}

// class is that of a user of the host.
func (s *Server) class(uid uint32) api.Access {
	if uid == 0 {
		return api.Owner
	}
	return s.config.Access[uid]
}

// peer is the user id of the process that connected.
func peer(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); e != nil {
		return 0, e
	}
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// handler answers a request. An error that it returns is written if nothing else was.
type handler func(w http.ResponseWriter, r *http.Request) error

// guard lets through only who may use the route, and what is within the bounds.
func (s *Server) guard(route api.Route, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		class, _ := r.Context().Value(accessKey{}).(api.Access)
		routes, _ := r.Context().Value(routesKey{}).([]string)
		if class == api.Owner && s.config.Developer != nil {
			class = api.Developer
		}
		switch {
		case route.Access == api.Developer && s.config.Developer == nil:
			writeError(w, api.Errorf(api.NotFound, "this is no developer image: there is no route %s %s", r.Method, r.URL.Path))
			return
		case class < route.Access && !slices.Contains(routes, route.Pattern()):
			writeError(w, api.Errorf(api.Refused, "this is for the class %s, and you are %s", route.Access, class))
			return
		}
		out := &writer{ResponseWriter: w}
		if actor, err := url.QueryUnescape(r.Header.Get(api.ActorHeader)); err == nil && actor != "" {
			r = r.WithContext(api.WithActor(r.Context(), actor))
		}
		if !streams[route.Pattern()] {
			ctx, cancel := context.WithTimeout(r.Context(), answerTime)
			defer cancel()
			r = r.WithContext(ctx)
			if err := awaitBody(w, r); err != nil {
				writeError(out, err)
				return
			}
		}
		if err := h(out, r); err != nil && !out.begun {
			writeError(out, err)
		}
	})
}

// awaitBody reads the body in time, before the handler begins: with HTTP/1 a deadline that goes on would end the handler's
// context.
func awaitBody(w http.ResponseWriter, r *http.Request) error {
	// Where there can be no deadline, the connection's own bounds have to do.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTime))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBody))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return api.Errorf(api.Invalid, "the request did not come within %v", bodyTime)
	}
	if err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	_ = control.SetReadDeadline(time.Time{})
	return nil
}

// writer notes whether an answer was begun.
type writer struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader implements http.ResponseWriter.
func (w *writer) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *writer) Write(p []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// asError makes an *api.Error of any error.
func asError(err error) *api.Error {
	var e *api.Error
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &tooLong):
		return api.Errorf(api.Invalid, "the request is longer than %d bytes", tooLong.Limit)
	}
	return api.Errorf(api.Internal, "%v", err)
}

func writeError(w http.ResponseWriter, err error) {
	e := asError(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Status())
	json.NewEncoder(w).Encode(e)
}

// answer writes v as the whole answer.
func answer(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

// done is the answer where there is nothing to say.
func done(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

// stream writes each item as it comes. An error that comes first is the answer's status; a later one ends the stream. Who
// follows is told at once that he does, so that then every error is a later one.
func stream[T any](w http.ResponseWriter, follow bool, items iter.Seq2[T, error]) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush := http.NewResponseController(w)
	out := json.NewEncoder(w)
	begun := follow
	if follow {
		w.WriteHeader(http.StatusOK)
		if err := flush.Flush(); err != nil {
			return err
		}
	}
	for item, err := range items {
		f := api.Frame[T]{Item: &item}
		if err != nil {
			if !begun {
				return err
			}
			f = api.Frame[T]{Error: asError(err)}
		}
		begun = true
		if out.Encode(f) != nil || flush.Flush() != nil {
			return nil // nobody reads any more
		}
	}
	if !begun {
		w.WriteHeader(http.StatusOK)
	}
	return nil
}

// read reads the request's body, which must be one JSON value of the type and nothing else.
func read[T any](r *http.Request) (v T, err error) {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		var tooLong *http.MaxBytesError
		if errors.As(err, &tooLong) {
			return v, err
		}
		return v, api.Errorf(api.Invalid, "the request cannot be understood: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return v, api.Errorf(api.Invalid, "the request goes on behind its end")
	}
	return v, nil
}
