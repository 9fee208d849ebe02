package api

import (
	"bufio"
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
	"strconv"
	"strings"
	"time"

	"allotment/api/link"
	"allotment/image"
)

// Client asks a box. Its methods can be called from several goroutines; errors that the box itself tells are *Error.
type Client struct{ http http.Client }

// New returns a client that reaches the box by dial. Its requests share one HTTP/2 connection.
func New(dial func(context.Context) (net.Conn, error)) *Client {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		Protocols:   new(http.Protocols),
		HTTP2:       &http.HTTP2Config{MaxReceiveBufferPerStream: 1 << 20},
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	return &Client{http.Client{Transport: t}}
}

// Unix returns a client of the API's unix socket at path.
func Unix(path string) *Client {
	return New(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	})
}

// Port returns a client of the virtio port whose other end the hypervisor offers as the unix socket at path. It has one
// client at a time: a second one waits.
func Port(path string) *Client {
	return New(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", path)
		if err != nil {
			return nil, err
		}
		return link.Dial(ctx, c)
	})
}

// Close ends the connection when no request uses it any more.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Info asks which box it is.
func (c *Client) Info(ctx context.Context) (Info, error) { return get[Info](ctx, c, "/v1", nil) }

// Health asks for the state of the box.
func (c *Client) Health(ctx context.Context) (Health, error) {
	return get[Health](ctx, c, "/v1/health", nil)
}

// Modules asks for all modules.
func (c *Client) Modules(ctx context.Context) ([]Module, error) {
	return get[[]Module](ctx, c, "/v1/modules", nil)
}

// Module asks for one module.
func (c *Client) Module(ctx context.Context, name string) (Module, error) {
	return get[Module](ctx, c, path("modules", name), nil)
}

// Switch switches a module on or off.
func (c *Client) Switch(ctx context.Context, module string, on bool) error {
	to := "off"
	if on {
		to = "on"
	}
	return c.send(ctx, http.MethodPost, path("modules", module, to), nil)
}

// Restart ends a service and starts it again.
func (c *Client) Restart(ctx context.Context, module, service string) error {
	return c.send(ctx, http.MethodPost, path("modules", module, "services", service, "restart"), nil)
}

// Logs reads lines of logs, the oldest first.
func (c *Client) Logs(ctx context.Context, q LogQuery) iter.Seq2[Line, error] {
	return stream[Line](ctx, c, http.MethodGet, "/v1/logs", q.values(), nil)
}

// Events reads what happened, the oldest first.
func (c *Client) Events(ctx context.Context, q EventQuery) iter.Seq2[Event, error] {
	return stream[Event](ctx, c, http.MethodGet, "/v1/events", q.values(), nil)
}

// Resources asks for what the box has and what is used of it.
func (c *Client) Resources(ctx context.Context) (Resources, error) {
	return get[Resources](ctx, c, "/v1/resources", nil)
}

// Settings asks for the settings of a module, or for those of the organisation if module is empty.
func (c *Client) Settings(ctx context.Context, module string) (Settings, error) {
	return get[Settings](ctx, c, settingsPath(module), nil)
}

// SetSettings changes the named settings of a module, or of the organisation if module is empty.
func (c *Client) SetSettings(ctx context.Context, module string, values map[string]any) error {
	return c.send(ctx, http.MethodPatch, settingsPath(module), values)
}

func settingsPath(module string) string {
	if module == "" {
		return "/v1/settings"
	}
	return path("modules", module, "settings")
}

// Tasks asks for all tasks.
func (c *Client) Tasks(ctx context.Context) ([]Task, error) {
	return get[[]Task](ctx, c, "/v1/tasks", nil)
}

// RunTask runs a task; that it fails is no error, but in the last Progress.
func (c *Client) RunTask(ctx context.Context, t Task) iter.Seq2[Progress, error] {
	return stream[Progress](ctx, c, http.MethodPost, path("modules", t.Module, "tasks", t.Kind, t.Name), nil, nil)
}

// Update asks how the box stays up to date.
func (c *Client) Update(ctx context.Context) (Update, error) {
	return get[Update](ctx, c, "/v1/update", nil)
}

// UpdateHistory asks for the updates that were tried, the newest first.
func (c *Client) UpdateHistory(ctx context.Context) ([]UpdateAttempt, error) {
	return get[[]UpdateAttempt](ctx, c, "/v1/update/history", nil)
}

// SetUpdatePolicy changes what is set in p.
func (c *Client) SetUpdatePolicy(ctx context.Context, p UpdatePolicy) error {
	return c.send(ctx, http.MethodPatch, "/v1/update/policy", p)
}

// CheckUpdate has the publisher asked for a new version.
func (c *Client) CheckUpdate(ctx context.Context) error {
	return c.send(ctx, http.MethodPost, "/v1/update/check", nil)
}

// UpdateNow has a new version tried as soon as possible.
func (c *Client) UpdateNow(ctx context.Context) error {
	return c.send(ctx, http.MethodPost, "/v1/update/now", nil)
}

// GoBack asks what going back to the version of before would lose, and goes back if that is confirmed.
func (c *Client) GoBack(ctx context.Context, confirmed bool) (GoBack, error) {
	query := url.Values{"confirm": {strconv.FormatBool(confirmed)}}
	return answered[GoBack](ctx, c, http.MethodPost, "/v1/update/back", query)
}

// RestartUpdate has the release tried that is staged. It returns with the reason why it cannot be; otherwise the box resets,
// and the connection breaks or nil is returned.
func (c *Client) RestartUpdate(ctx context.Context) error {
	return c.send(ctx, http.MethodPost, "/v1/update/restart", nil)
}

// TidyUpdates removes the copies of data that no way back needs any more.
func (c *Client) TidyUpdates(ctx context.Context) error {
	return c.send(ctx, http.MethodPost, "/v1/update/tidy", nil)
}

// Provision makes accounts.
func (c *Client) Provision(ctx context.Context, p Provision) iter.Seq2[Account, error] {
	return stream[Account](ctx, c, http.MethodPost, "/v1/provision", nil, p)
}

// HasLayer asks whether the box has a layer.
func (c *Client) HasLayer(ctx context.Context, d image.Digest) (bool, error) {
	_, err := get[struct{}](ctx, c, path("developer", "layers", string(d)), nil)
	if errors.Is(err, &Error{Code: NotFound}) {
		return false, nil
	}
	return err == nil, err
}

// AddLayer gives the box the layer that r reads.
func (c *Client) AddLayer(ctx context.Context, d image.Digest, r io.Reader) error {
	answer, err := c.do(ctx, http.MethodPut, path("developer", "layers", string(d)), nil, io.NopCloser(r))
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

// Replace runs a module by another declaration, until the next boot. The box must have its layers.
func (c *Client) Replace(ctx context.Context, m image.Module) error {
	return c.send(ctx, http.MethodPut, path("developer", "modules", m.Name), m)
}

// DialModule connects to a TCP port of a module, exposed or not. ctx counts until it is connected.
func (c *Client) DialModule(ctx context.Context, module string, port int) (net.Conn, error) {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(ctx, end)
	ours, theirs := net.Pipe()
	route := path("developer", "modules", module, "ports", strconv.Itoa(port))
	answer, err := c.do(life, http.MethodPost, route, nil, question{theirs})
	if !unhook() && err == nil {
		answer.Body.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		end()
		theirs.Close()
		return nil, err
	}
	go func() {
		io.Copy(theirs, answer.Body)
		answer.Body.Close()
		theirs.Close()
		end()
	}()
	return ours, nil
}

// question is the end of a pipe as a request's body. The transport closes that as soon as the answer has come to its end,
// while the answer is still being written to the pipe: so closing ends reading alone.
type question struct{ net.Conn }

// Close implements io.Closer.
func (q question) Close() error { return q.SetReadDeadline(time.Unix(1, 0)) }

// Run runs a command in the container of a running service.
func (c *Client) Run(ctx context.Context, module, service string, command ...string) iter.Seq2[Output, error] {
	return stream[Output](ctx, c, http.MethodPost, path("developer", "modules", module, "services", service, "run"), nil,
		Run{Command: command})
}

// Processes asks for all processes.
func (c *Client) Processes(ctx context.Context) ([]Process, error) {
	return get[[]Process](ctx, c, "/v1/developer/processes", nil)
}

// Signal sends a signal such as SIGKILL to a process.
func (c *Client) Signal(ctx context.Context, pid int, signal string) error {
	return c.send(ctx, http.MethodPost, path("developer", "processes", strconv.Itoa(pid), "signal", signal), nil)
}

// MoveClock moves the box's clock, by whole seconds.
func (c *Client) MoveClock(ctx context.Context, by time.Duration) error {
	return c.send(ctx, http.MethodPost, path("developer", "clock", strconv.Itoa(int(by/time.Second))), nil)
}

func (q LogQuery) values() url.Values {
	v := url.Values{"lines": {strconv.Itoa(q.Lines)}, "follow": {strconv.FormatBool(q.Follow)}}
	if q.Module != "" {
		v.Set("module", q.Module)
	}
	if q.Service != "" {
		v.Set("service", q.Service)
	}
	return v
}

func (q EventQuery) values() url.Values {
	return url.Values{"after": {strconv.FormatUint(q.After, 10)}, "follow": {strconv.FormatBool(q.Follow)}}
}

// path joins parts below /v1, each as one segment.
func path(parts ...string) string {
	var b strings.Builder
	b.WriteString("/v1")
	for _, p := range parts {
		b.WriteString("/" + url.PathEscape(p))
	}
	return b.String()
}

// longestAnswer bounds what is read of an answer that does not stream, in bytes.
const longestAnswer = 16 << 20

func get[T any](ctx context.Context, c *Client, path string, query url.Values) (v T, err error) {
	return answered[T](ctx, c, http.MethodGet, path, query)
}

func answered[T any](ctx context.Context, c *Client, method, path string, query url.Values) (v T, err error) {
	answer, err := c.do(ctx, method, path, query, nil)
	if err != nil {
		return v, err
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(io.LimitReader(answer.Body, longestAnswer)).Decode(&v); err != nil {
		return v, fmt.Errorf("cannot understand the box's answer to %s: %w", path, err)
	}
	return v, nil
}

// send sends v, unless it is nil, and wants no answer but that it is done.
func (c *Client) send(ctx context.Context, method, path string, v any) error {
	body, err := encode(v)
	if err != nil {
		return err
	}
	answer, err := c.do(ctx, method, path, nil, body)
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

func encode(v any) (io.ReadCloser, error) {
	if v == nil {
		return nil, nil
	}
	b, err := json.Marshal(v)
	return io.NopCloser(bytes.NewReader(b)), err
}

// Frame is one line of a stream: an item, or the error that ended it.
type Frame[T any] struct {
	Item  *T     `json:"item,omitempty"`
	Error *Error `json:"error,omitempty"`
}

// stream asks and yields the items of the answer.
func stream[T any](ctx context.Context, c *Client, method, path string, query url.Values, v any) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		body, err := encode(v)
		if err != nil {
			yield(none, err)
			return
		}
		answer, err := c.do(ctx, method, path, query, body)
		if err != nil {
			yield(none, err)
			return
		}
		defer answer.Body.Close()
		for d := json.NewDecoder(bufio.NewReader(answer.Body)); ; {
			var f Frame[T]
			switch err := d.Decode(&f); {
			case err == io.EOF:
				return
			case err != nil:
				yield(none, fmt.Errorf("cannot read on from the box: %w", err))
				return
			case f.Error != nil:
				yield(none, f.Error)
				return
			case f.Item != nil && !yield(*f.Item, nil):
				return
			}
		}
	}
}

// do asks, and turns an answer that is none into an error.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body io.ReadCloser) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://box"+path+"?"+query.Encode(), body)
	if err != nil {
		return nil, err
	}
	if actor := Actor(ctx); actor != "" {
		r.Header.Set(ActorHeader, url.QueryEscape(actor))
	}
	answer, err := c.http.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the address, which is ours
		}
		return nil, fmt.Errorf("cannot reach the box: %w", err)
	}
	if answer.StatusCode < 300 {
		return answer, nil
	}
	defer answer.Body.Close()
	e := &Error{}
	if err := json.NewDecoder(io.LimitReader(answer.Body, longestAnswer)).Decode(e); err != nil || e.Message == "" {
		return nil, fmt.Errorf("the box answers %s to %s %s", answer.Status, method, path)
	}
	return nil, e
}
