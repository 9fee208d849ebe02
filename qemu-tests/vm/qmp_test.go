package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}}, "capabilities": []}}` + "\n"

// server answers each command by its name, over a connection that speaks QMP.
func server(t *testing.T, first string, answers map[string]string) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close() })
	go func() {
		defer theirs.Close()
		if _, err := theirs.Write([]byte(first)); err != nil {
			return
		}
		lines := bufio.NewScanner(theirs)
		for lines.Scan() {
			var c struct {
				Execute string `json:"execute"`
				ID      int    `json:"id"`
			}
			if json.Unmarshal(lines.Bytes(), &c) != nil {
				return
			}
			answer, ok := answers[c.Execute]
			if !ok {
				return
			}
			id, _ := json.Marshal(c.ID)
			theirs.Write([]byte(strings.ReplaceAll(answer, "ID", string(id)) + "\n"))
		}
	}()
	return ours
}

func TestQMP(t *testing.T) {
	events := newJournal[string]()
	q, err := newQMP(t.Context(), server(t, greeting, map[string]string{
		"qmp_capabilities": `{"return": {}, "id": ID}`,
		"query-status":     `{"event": "RESET", "data": {"guest": true}} {"return": {"running": true}, "id": ID}`,
		"wrong":            `{"error": {"class": "CommandNotFound", "desc": "no such thing"}, "id": ID}`,
	}), func(name string, data json.RawMessage) { events.add(name + string(data)) })
	if err != nil {
		t.Fatal(err)
	}
	answer, err := q.execute(t.Context(), "query-status", nil)
	if err != nil || string(answer) != `{"running": true}` {
		t.Errorf("answer %s, error %v", answer, err)
	}
	if got := events.all(); len(got) != 1 || got[0] != `RESET{"guest": true}` {
		t.Errorf("events %q", got)
	}
	if _, err := q.execute(t.Context(), "wrong", nil); err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("error %v: want that of the server", err)
	}
	if _, err := q.execute(t.Context(), "hang up", nil); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("error %v: want that the machine ended", err)
	}
	<-q.done
	if _, err := q.execute(t.Context(), "query-status", nil); err == nil {
		t.Error("a closed connection took a command")
	}
}

func TestQMPRefusesOtherProtocols(t *testing.T) {
	if _, err := newQMP(t.Context(), server(t, "{}\n", nil), nil); !errors.Is(err, errNoGreeting) {
		t.Errorf("error %v", err)
	}
	if _, err := newQMP(t.Context(), server(t, "SSH-2.0\n", nil), nil); err == nil {
		t.Error("text was taken for a greeting")
	}
}

func TestQMPGivesUpWithItsContext(t *testing.T) {
	ours, theirs := net.Pipe() // says nothing
	defer theirs.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newQMP(ctx, ours, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
