package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
)

// qmpClient speaks the QEMU Machine Protocol (QEMU documentation, "QEMU Machine Protocol Specification") over one
// connection.
type qmpClient struct {
	conn  net.Conn
	event func(name string, data json.RawMessage)
	done  chan struct{} // closed when the connection has ended and every event was reported

	mu      sync.Mutex
	next    int
	pending map[int]chan qmpMessage
	closed  error
}

// qmpMessage is any message of the server; just one of Greeting, Return, Error and Event is set.
type qmpMessage struct {
	Greeting json.RawMessage `json:"QMP"`
	Return   json.RawMessage `json:"return"`
	Error    *qmpError       `json:"error"`
	Event    string          `json:"event"`
	Data     json.RawMessage `json:"data"`
	ID       int             `json:"id"`
}

type qmpError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

var errNoGreeting = errors.New("the other side sent no QMP greeting")

// newQMP reads the greeting, leaves the negotiation mode and reports events from then on until the connection ends.
func newQMP(ctx context.Context, conn net.Conn, event func(string, json.RawMessage)) (*qmpClient, error) {
	q := &qmpClient{conn: conn, event: event, done: make(chan struct{}), pending: map[int]chan qmpMessage{}}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	dec := json.NewDecoder(conn)
	var hello qmpMessage
	if err := dec.Decode(&hello); err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot read QMP greeting: %w", errors.Join(err, ctx.Err()))
	}
	if hello.Greeting == nil {
		conn.Close()
		return nil, errNoGreeting
	}
	go q.read(dec)
	if _, err := q.execute(ctx, "qmp_capabilities", nil); err != nil {
		return nil, err
	}
	return q, nil
}

// execute runs a command and returns its answer.
func (q *qmpClient) execute(ctx context.Context, command string, arguments any) (json.RawMessage, error) {
	answer := make(chan qmpMessage, 1)
	id, err := q.send(command, arguments, answer)
	if err != nil {
		return nil, fmt.Errorf("cannot send QMP command %q: %w", command, err)
	}
	select {
	case m, ok := <-answer:
		if !ok {
			return nil, fmt.Errorf("cannot finish QMP command %q: the machine ended", command)
		}
		if m.Error != nil {
			return nil, fmt.Errorf("cannot execute QMP command %q: %s: %s", command, m.Error.Class, m.Error.Desc)
		}
		return m.Return, nil
	case <-ctx.Done():
		q.mu.Lock()
		delete(q.pending, id)
		q.mu.Unlock()
		return nil, fmt.Errorf("cannot finish QMP command %q: %w", command, context.Cause(ctx))
	}
}

func (q *qmpClient) send(command string, arguments any, answer chan qmpMessage) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed != nil {
		return 0, q.closed
	}
	q.next++
	b, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        int    `json:"id"`
	}{command, arguments, q.next})
	if err != nil {
		return 0, err
	}
	q.pending[q.next] = answer
	_, err = q.conn.Write(append(b, '\n'))
	return q.next, err
}

// read hands answers to those who wait and events to the owner, until the connection ends.
func (q *qmpClient) read(dec *json.Decoder) {
	defer close(q.done)
	for {
		var m qmpMessage
		if err := dec.Decode(&m); err != nil {
			q.close(err)
			return
		}
		if m.Event != "" {
			q.event(m.Event, m.Data)
			continue
		}
		q.mu.Lock()
		answer := q.pending[m.ID]
		delete(q.pending, m.ID)
		q.mu.Unlock()
		if answer != nil {
			answer <- m
		}
	}
}

func (q *qmpClient) close(why error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = fmt.Errorf("the connection ended: %w", why)
	for _, answer := range q.pending {
		close(answer)
	}
	q.pending = nil
	q.conn.Close()
}
