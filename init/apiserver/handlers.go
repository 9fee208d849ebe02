package apiserver

import (
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"allotment/api"
	"allotment/image"
)

// streams are the routes whose bodies have no bounds of time and size.
var streams = map[string]bool{
	"GET /v1/logs":            true,
	"GET /v1/events":          true,
	"POST /v1/provision":      true,
	"GET /v1/export":          true,
	"POST /v1/update/restart": true,
	"POST /v1/modules/{module}/tasks/{kind}/{task}":              true,
	"PUT /v1/developer/layers/{digest}":                          true,
	"POST /v1/developer/modules/{module}/ports/{port}":           true,
	"POST /v1/developer/modules/{module}/services/{service}/run": true,
}

// handlers are those of all routes, by their patterns.
func (s *Server) handlers() map[string]handler {
	all := map[string]handler{
		"GET /v1":         func(w http.ResponseWriter, _ *http.Request) error { return answer(w, s.config.Box.Info()) },
		"GET /v1/health":  func(w http.ResponseWriter, _ *http.Request) error { return answer(w, s.config.Box.Health()) },
		"GET /v1/modules": func(w http.ResponseWriter, _ *http.Request) error { return answer(w, s.config.Box.Modules()) },
		"GET /v1/tasks":   func(w http.ResponseWriter, _ *http.Request) error { return answer(w, s.config.Box.Tasks()) },
		"GET /v1/resources": func(w http.ResponseWriter, _ *http.Request) error {
			return answer(w, s.config.Box.Resources())
		},
		"GET /v1/modules/{module}":                             s.getModule,
		"POST /v1/modules/{module}/on":                         s.switchTo(true),
		"POST /v1/modules/{module}/off":                        s.switchTo(false),
		"POST /v1/modules/{module}/services/{service}/restart": s.restart,
		"GET /v1/logs":                                         s.logs,
		"GET /v1/events":                                       s.events,
		"GET /v1/settings":                                     s.getSettings,
		"PATCH /v1/settings":                                   s.patchSettings,
		"GET /v1/modules/{module}/settings":                    s.getSettings,
		"PATCH /v1/modules/{module}/settings":                  s.patchSettings,
		"POST /v1/modules/{module}/tasks/{kind}/{task}":        s.runTask,
		"POST /v1/provision":                                   s.provision,

		"GET /v1/network":        func(w http.ResponseWriter, _ *http.Request) error { return answer(w, s.config.Box.Network()) },
		"POST /v1/power/restart": s.power(true),
		"POST /v1/power/off":     s.power(false),
		"GET /v1/claim":          func(w http.ResponseWriter, _ *http.Request) error { return answer(w, s.config.Box.Claim()) },
		"POST /v1/claim/wrong":   s.claimWrong,
		"POST /v1/claimed":       func(w http.ResponseWriter, r *http.Request) error { return done(w, s.config.Box.Claimed(r.Context())) },

		"GET /v1/update":          s.update,
		"GET /v1/update/history":  s.updateHistory,
		"PATCH /v1/update/policy": s.patchUpdatePolicy,
		"POST /v1/update/check":   func(w http.ResponseWriter, _ *http.Request) error { return done(w, s.config.Box.CheckUpdate(false)) },
		"POST /v1/update/now":     func(w http.ResponseWriter, _ *http.Request) error { return done(w, s.config.Box.CheckUpdate(true)) },
		"POST /v1/update/back":    s.goBack,
		"POST /v1/update/restart": s.restartUpdate,
		"POST /v1/update/tidy":    s.tidyUpdates,

		"GET /v1/developer/layers/{digest}":                          s.hasLayer,
		"PUT /v1/developer/layers/{digest}":                          s.addLayer,
		"PUT /v1/developer/modules/{module}":                         s.replace,
		"POST /v1/developer/modules/{module}/ports/{port}":           s.tunnel,
		"POST /v1/developer/modules/{module}/services/{service}/run": s.run,
		"GET /v1/developer/processes":                                s.processes,
		"POST /v1/developer/processes/{pid}/signal/{signal}":         s.signal,
		"POST /v1/developer/clock/{seconds}":                         moveClock,
	}
	maps.Copy(all, s.backupHandlers())
	return all
}

// module finds the module that the path names.
func (s *Server) module(r *http.Request) (api.Module, error) { return s.find(r.PathValue("module")) }

func (s *Server) find(name string) (api.Module, error) {
	all := s.config.Box.Modules()
	i := slices.IndexFunc(all, func(m api.Module) bool { return m.Name == name })
	if i < 0 {
		return api.Module{}, api.Errorf(api.NotFound, "there is no module %q", name)
	}
	return all[i], nil
}

// service finds the service that the path names.
func (s *Server) service(r *http.Request) (module, service string, err error) {
	m, err := s.module(r)
	if err != nil {
		return "", "", err
	}
	name := r.PathValue("service")
	if !slices.ContainsFunc(m.Services, func(v api.Service) bool { return v.Name == name }) {
		return "", "", api.Errorf(api.NotFound, "module %q has no service %q", m.Name, name)
	}
	return m.Name, name, nil
}

func (s *Server) getModule(w http.ResponseWriter, r *http.Request) error {
	m, err := s.module(r)
	if err != nil {
		return err
	}
	return answer(w, m)
}

func (s *Server) switchTo(on bool) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		m, err := s.module(r)
		if err != nil {
			return err
		}
		return done(w, s.config.Box.Switch(r.Context(), m.Name, on))
	}
}

func (s *Server) restart(w http.ResponseWriter, r *http.Request) error {
	module, service, err := s.service(r)
	if err != nil {
		return err
	}
	return done(w, s.config.Box.Restart(r.Context(), module, service))
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	q := api.LogQuery{Module: v.Get("module"), Service: v.Get("service"), Lines: -1}
	var err error
	if t := v.Get("lines"); t != "" {
		if q.Lines, err = strconv.Atoi(t); err != nil {
			return api.Errorf(api.Invalid, "lines is no number: %q", t)
		}
	}
	if q.Follow, err = flag(v.Get("follow")); err != nil {
		return err
	}
	if q.Module != "" {
		if _, err := s.find(q.Module); err != nil {
			return err
		}
	}
	return stream(w, q.Follow, s.config.Box.Logs(r.Context(), q))
}

func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	var q api.EventQuery
	var err error
	if t := v.Get("after"); t != "" {
		if q.After, err = strconv.ParseUint(t, 10, 64); err != nil {
			return api.Errorf(api.Invalid, "after is no number of an event: %q", t)
		}
	}
	if q.Follow, err = flag(v.Get("follow")); err != nil {
		return err
	}
	return stream(w, q.Follow, s.config.Box.Events(r.Context(), q))
}

func flag(text string) (bool, error) {
	switch text {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, api.Errorf(api.Invalid, "want true or false, not %q", text)
}

// settingsOf is the module whose settings the path names; empty for those of the organisation.
func (s *Server) settingsOf(r *http.Request) (string, error) {
	if r.PathValue("module") == "" {
		return "", nil
	}
	m, err := s.module(r)
	return m.Name, err
}

func (s *Server) getSettings(w http.ResponseWriter, r *http.Request) error {
	module, err := s.settingsOf(r)
	if err != nil {
		return err
	}
	v, err := s.config.Box.Settings(module)
	if err != nil {
		return err
	}
	return answer(w, v)
}

func (s *Server) patchSettings(w http.ResponseWriter, r *http.Request) error {
	module, err := s.settingsOf(r)
	if err != nil {
		return err
	}
	values, err := read[map[string]any](r)
	if err != nil {
		return err
	}
	return done(w, s.config.Box.SetSettings(r.Context(), module, values))
}

func (s *Server) runTask(w http.ResponseWriter, r *http.Request) error {
	want := api.Task{Module: r.PathValue("module"), Kind: r.PathValue("kind"), Name: r.PathValue("task")}
	known := func(t api.Task) bool { return t.Module == want.Module && t.Kind == want.Kind && t.Name == want.Name }
	if !slices.ContainsFunc(s.config.Box.Tasks(), known) {
		return api.Errorf(api.NotFound, "module %q has no %s %q", want.Module, want.Kind, want.Name)
	}
	return stream(w, false, s.config.Box.RunTask(r.Context(), want))
}

// mostUsers is how many accounts can be asked for at once.
const mostUsers = 1000

func (s *Server) provision(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, mostBody)
	p, err := read[api.Provision](r)
	if err != nil {
		return err
	}
	if p.Users < 1 || p.Users > mostUsers {
		return api.Errorf(api.Invalid, "users must be 1 to %d, not %d", mostUsers, p.Users)
	}
	if p.Group == "" {
		p.Group = "members"
	}
	return stream(w, false, s.config.Box.Provision(r.Context(), p))
}

func digest(r *http.Request) (image.Digest, error) {
	d, err := image.ParseDigest(r.PathValue("digest"))
	if err != nil {
		return "", api.Errorf(api.Invalid, "%v", err)
	}
	return d, nil
}

func (s *Server) hasLayer(w http.ResponseWriter, r *http.Request) error {
	d, err := digest(r)
	if err != nil {
		return err
	}
	if !s.config.Developer.HasLayer(d) {
		return api.Errorf(api.NotFound, "there is no layer %s", d)
	}
	return answer(w, struct{}{})
}

func (s *Server) addLayer(w http.ResponseWriter, r *http.Request) error {
	d, err := digest(r)
	if err != nil {
		return err
	}
	return done(w, s.config.Developer.AddLayer(r.Context(), d, r.Body))
}

func (s *Server) replace(w http.ResponseWriter, r *http.Request) error {
	m, err := read[image.Module](r)
	if err != nil {
		return err
	}
	if m.Name != r.PathValue("module") {
		return api.Errorf(api.Invalid, "the declaration is that of module %q", m.Name)
	}
	return done(w, s.config.Developer.Replace(r.Context(), m))
}

const dialTime = 10 * time.Second

// tunnel joins the request's body and the answer's to a TCP connection. When the body ends, so does the connection.
func (s *Server) tunnel(w http.ResponseWriter, r *http.Request) error {
	m, err := s.module(r)
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(r.PathValue("port"), 10, 16)
	if err != nil || port == 0 {
		return api.Errorf(api.Invalid, "there is no port %q", r.PathValue("port"))
	}
	host, err := netip.ParseAddr(m.IPv4)
	if err != nil {
		return err
	}
	d := net.Dialer{Timeout: dialTime}
	c, err := d.DialContext(r.Context(), "tcp", netip.AddrPortFrom(host, uint16(port)).String())
	if err != nil {
		return api.Errorf(api.Conflict, "cannot connect to module %q: %v", m.Name, err)
	}
	defer c.Close()
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // HTTP/2 is so by itself
	w.WriteHeader(http.StatusOK)
	if err := control.Flush(); err != nil {
		return err
	}
	go func() {
		io.Copy(c, r.Body)
		c.Close()
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			if err := control.Flush(); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

func (s *Server) run(w http.ResponseWriter, r *http.Request) error {
	module, service, err := s.service(r)
	if err != nil {
		return err
	}
	r.Body = http.MaxBytesReader(w, r.Body, mostBody)
	v, err := read[api.Run](r)
	if err != nil {
		return err
	}
	if len(v.Command) == 0 {
		return api.Errorf(api.Invalid, "there is no command")
	}
	return stream(w, false, s.config.Developer.Run(r.Context(), module, service, v.Command))
}

func (s *Server) processes(w http.ResponseWriter, _ *http.Request) error {
	all, err := s.config.Developer.Processes()
	if err != nil {
		return err
	}
	return answer(w, all)
}

func (s *Server) signal(w http.ResponseWriter, r *http.Request) error {
	pid, err := strconv.Atoi(r.PathValue("pid"))
	if err != nil || pid <= 0 {
		return api.Errorf(api.Invalid, "%q is no number of a process", r.PathValue("pid"))
	}
	sig := unix.SignalNum(r.PathValue("signal"))
	if sig == 0 {
		return api.Errorf(api.Invalid, "there is no signal %q", r.PathValue("signal"))
	}
	return done(w, s.config.Developer.Signal(pid, sig))
}

// moveClock moves the clock behind the back of all that keeps it.
func moveClock(w http.ResponseWriter, r *http.Request) error {
	by, err := strconv.ParseInt(r.PathValue("seconds"), 10, 32)
	if err != nil {
		return api.Errorf(api.Invalid, "%q is no number of seconds", r.PathValue("seconds"))
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
		return err
	}
	now.Sec += by
	return done(w, unix.ClockSettime(unix.CLOCK_REALTIME, &now))
}
