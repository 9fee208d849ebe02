package delta

import (
	"bytes"
	"slices"
	"testing"

	"allotment/image/delta"
)

func TestFindPrefersTheMostTellingName(t *testing.T) {
	c := newCatalogue()
	for i, e := range []extent{
		{delta.Range{Size: 10}, key{part: "web", path: "usr/lib/libx.so.1"}},
		{delta.Range{Size: 20}, key{part: "chat", path: "usr/lib/libx.so.2"}},
		{delta.Range{Size: 30}, key{part: "chat", path: "usr/lib/liby.so.1"}},
		{delta.Range{Size: 31}, key{part: "chat", path: "usr/lib/liby.so.1"}},
		{delta.Range{Size: 40}, key{part: "web", path: "usr/lib/libx.so.1", meta: true}},
	} {
		e.Offset = int64(i)
		c.add(e)
	}
	for name, want := range map[key]int64{
		{part: "web", path: "usr/lib/libx.so.1"}:             0, // itself
		{part: "web", path: "usr/lib/libx.so.2"}:             0, // another version goes before another part
		{part: "mail", path: "usr/lib/libx.so.2"}:            1, // itself, in another part
		{part: "mail", path: "opt/libx.so.3"}:                1, // the name alone, of the nearest size
		{part: "chat", path: "usr/lib/liby.so.1"}:            3, // of the nearest size
		{part: "web", path: "usr/lib/libx.so.1", meta: true}: 4, // what lies behind it
	} {
		if e, ok := c.find(name, 35); !ok || e.Offset != want {
			t.Errorf("%v is found in extent %d (%v), want %d", name, e.Offset, ok, want)
		}
	}
	if e, ok := c.find(key{part: "web", path: "etc/other"}, 1); ok {
		t.Errorf("found %v for a name that nothing has", e)
	}
}

func TestAroundStaysInside(t *testing.T) {
	small := delta.Range{File: 1, Offset: 100, Size: window}
	if got := around(small, 5, 5, 100); got != small {
		t.Errorf("of a small extent it is %v", got)
	}
	large := delta.Range{File: 1, Offset: 100, Size: 3 * window}
	for pos, want := range map[int64]int64{0: 100, 50: 100 + window, 99: 100 + 2*window} {
		got := around(large, pos, 1, 100)
		if got.Size != window || got.Offset < 100 || got.Offset+got.Size > 100+3*window || max(got.Offset-want, want-got.Offset) > window/20 {
			t.Errorf("around %d %% it is %v, want it to begin near %d", pos, got, want)
		}
	}
}

func TestSimilarFindsContentThatHasMoved(t *testing.T) {
	a, b := noise(1, 100_000), noise(2, 100_000)
	p := &plan{old: newCatalogue(), parts: []Part{inMemory("old", slices.Concat(a, b)), inMemory("new", slices.Concat(noise(3, 777), b[20_000:]))}}
	p.old.add(extent{delta.Range{File: 0, Offset: 0, Size: 100_000}, key{path: "a"}})
	p.old.add(extent{delta.Range{File: 0, Offset: 100_000, Size: 100_000}, key{path: "b"}})
	got, err := p.similar(delta.Range{File: 1, Size: p.parts[1].Size})
	if want := []delta.Range{{File: 0, Offset: 100_000, Size: 100_000}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("it is like %v (%v), want %v", got, err, want)
	}
	p.parts[1] = inMemory("new", bytes.Repeat([]byte("nothing like it"), 9000))
	if got, err := p.similar(delta.Range{File: 1, Size: p.parts[1].Size}); err != nil || len(got) > 0 {
		t.Errorf("nonsense is like %v (%v)", got, err)
	}
}
