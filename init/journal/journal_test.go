package journal

import (
	"context"
	"strconv"
	"testing"
	"time"

	"allotment/api"
)

var t0 = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

func collect(j *Journal, q api.EventQuery) []api.Event {
	var all []api.Event
	for e := range j.Events(context.Background(), q) {
		all = append(all, e)
	}
	return all
}

func TestOldestAreForgotten(t *testing.T) {
	j := New(1)
	for i := range 3 * Size {
		j.Add(api.Event{Text: strconv.Itoa(i)}, t0)
	}
	all := collect(j, api.EventQuery{})
	if len(all) != Size || all[0].Number != 2*Size+1 || all[Size-1].Number != 3*Size || all[0].Text != strconv.Itoa(2*Size) {
		t.Errorf("%d events from %v to %v", len(all), all[0], all[len(all)-1])
	}
	if late := collect(j, api.EventQuery{After: 3*Size - 2}); len(late) != 2 || late[1].Time != t0 {
		t.Errorf("after the last but two: %v", late)
	}
	if none := collect(j, api.EventQuery{After: 9 * Size}); len(none) != 0 {
		t.Errorf("after the last: %v", none)
	}
}

func TestFollow(t *testing.T) {
	j := New(7)
	j.Add(api.Event{Text: "before"}, t0)
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan api.Event)
	go func() {
		defer close(seen)
		for e := range j.Events(ctx, api.EventQuery{Follow: true}) {
			seen <- e
		}
	}()
	if e := <-seen; e.Number != 7 || e.Text != "before" {
		t.Errorf("the first is %v", e)
	}
	j.Add(api.Event{Text: "after"}, t0)
	if e := <-seen; e.Number != 8 || e.Text != "after" {
		t.Errorf("the second is %v", e)
	}
	cancel()
	if e, more := <-seen; more {
		t.Errorf("after the end came %v", e)
	}
}
