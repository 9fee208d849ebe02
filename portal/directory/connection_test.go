package directory_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"allotment/portal/directory"
)

// wire is a connection to a directory that can be cut.
type wire struct {
	to    string
	l     net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	mustDo(t, err)
	w := &wire{to: to, l: l}
	go w.accept()
	t.Cleanup(w.cut)
	return w
}

func (w *wire) accept() {
	for {
		a, err := w.l.Accept()
		if err != nil {
			return
		}
		b, err := net.Dial("tcp", w.to)
		if err != nil {
			a.Close()
			continue
		}
		w.mu.Lock()
		w.conns = append(w.conns, a, b)
		w.mu.Unlock()
		go func() { io.Copy(a, b); a.Close() }()
		go func() { io.Copy(b, a); b.Close() }()
	}
}

// drop ends the connections there are.
func (w *wire) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

// cut drops, and lets none in.
func (w *wire) cut() {
	w.l.Close()
	w.drop()
}

// TestReconnects loses the connection, once and for good.
func TestReconnects(t *testing.T) {
	s, ctx := start(t), t.Context()
	w := newWire(t, s.address)
	asked := 0
	d := directory.Open(w.l.Addr().String(), func() (string, error) { asked++; return s.password, nil })
	defer d.Close()
	for range 3 {
		if _, err := d.Group(ctx, "members"); err != nil {
			t.Fatal(err)
		}
		w.drop()
	}
	if asked != 3 {
		t.Errorf("it has logged in %d times", asked)
	}
	w.cut()
	_, err := d.Groups(ctx)
	mustBe(t, err, directory.ErrUnavailable)
	officers, none := d.Officers(ctx, time.Now())
	mustBe(t, none, directory.ErrUnavailable)
	if officers != nil {
		t.Errorf("officers %+v", officers)
	}
	mustBe(t, d.AddPerson(ctx, anna), directory.ErrUnavailable)
	mustBe(t, d.Authenticate(ctx, "anna", password), directory.ErrUnavailable)
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("error %v", err)
	}

	wrong := directory.Open(s.address, func() (string, error) { return "wrong", nil })
	_, err = wrong.Groups(ctx)
	mustBe(t, err, directory.ErrPassword)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err = s.Groups(gone)
	mustBe(t, err, context.Canceled)
}

// TestAtOnce uses one directory from many goroutines.
func TestAtOnce(t *testing.T) {
	s, ctx := start(t), t.Context()
	mustDo(t, s.Grant(ctx, "web", "edit", "members"))
	var wait sync.WaitGroup
	for i := range 20 {
		name := fmt.Sprintf("user%d", i)
		wait.Go(func() {
			if err := errors.Join(s.AddPerson(ctx, person(name)), s.AddMember(ctx, "members", name)); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for i := range 20 {
		if may, err := s.Allowed(ctx, fmt.Sprintf("user%d", i), "web", "edit"); err != nil || !may {
			t.Errorf("user%d may edit: %v, error %v", i, may, err)
		}
	}
}

// BenchmarkPeople lists 200 members with their groups, of which there are 40; the time of the processor is the caller's.
func BenchmarkPeople(b *testing.B) {
	s, ctx := start(b), b.Context()
	for g := range 40 {
		mustDo(b, s.AddGroup(ctx, directory.Group{Name: fmt.Sprintf("group%02d", g)}))
	}
	for i := range 200 {
		name := fmt.Sprintf("member%03d", i)
		mustDo(b, s.AddPerson(ctx, directory.Person{Name: name, Given: "Anna", Family: name, Mail: name + "@club.example"}),
			s.AddMember(ctx, "members", name), s.AddMember(ctx, fmt.Sprintf("group%02d", i%40), name))
	}
	before := cpu(b)
	for b.Loop() {
		if people, err := s.People(ctx); err != nil || len(people) != 200 {
			b.Fatalf("%d people, error %v", len(people), err)
		}
	}
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N)/1000, "cpu-ms/op")
}

// cpu is the time of the processor that this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	mustDo(b, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
