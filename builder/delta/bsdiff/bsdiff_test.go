package bsdiff

import (
	"bytes"
	"encoding/binary"
	"index/suffixarray"
	"math/rand/v2"
	"slices"
	"testing"
)

// patch is what a reader of the streams does, as docs/formats/delta.md has it.
func patch(t *testing.T, old []byte, s Streams) []byte {
	t.Helper()
	var out []byte
	pos := 0
	for len(s.Control) > 0 {
		skip, k := binary.Varint(s.Control)
		add, n := binary.Uvarint(s.Control[k:])
		insert, m := binary.Uvarint(s.Control[k+n:])
		s.Control = s.Control[k+n+m:]
		pos += int(skip)
		if pos < 0 || pos+int(add) > len(old) || add+insert == 0 {
			t.Fatalf("a step adds %d and inserts %d bytes at %d of %d", add, insert, pos, len(old))
		}
		for i := range int(add) {
			out = append(out, old[pos+i]+s.Diff[i])
		}
		out = append(out, s.Extra[:insert]...)
		s.Diff, s.Extra = s.Diff[add:], s.Extra[insert:]
		pos += int(add)
	}
	if len(s.Diff) > 0 || len(s.Extra) > 0 {
		t.Fatalf("%d and %d bytes are left over", len(s.Diff), len(s.Extra))
	}
	return out
}

func check(t *testing.T, old, new []byte) Streams {
	t.Helper()
	s := NewIndex(old).Diff(new)
	if got := patch(t, old, s); !bytes.Equal(got, new) {
		t.Fatalf("the streams make %d other bytes of %d to %d", len(got), len(old), len(new))
	}
	return s
}

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestDiffOfCodeThatMoved(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	old := noise(r, 200_000)
	new := slices.Concat(old[:50_000], noise(r, 100), old[50_000:120_000], old[130_000:])
	for i := 0; i < len(new); i += 400 { // as addresses do
		new[i] += 3
	}
	s := check(t, old, new)
	if len(s.Extra) > 400 {
		t.Errorf("%d bytes count as new, of which 100 are", len(s.Extra))
	}
	if rest := len(s.Diff) - bytes.Count(s.Diff, []byte{0}); rest > len(new)/400+50 {
		t.Errorf("%d bytes count as changed, of which %d are", rest, len(new)/400)
	}
}

func TestDiffOfLongRuns(t *testing.T) { // over which a search without a limit takes minutes
	zeros := make([]byte, 1<<17)
	holes := slices.Clone(zeros)
	for i := 0; i < len(holes); i += 1000 {
		holes[i] = byte(i)
	}
	check(t, zeros, append(slices.Clone(zeros), zeros...))
	check(t, zeros, holes)
	check(t, holes, zeros)
}

func TestDiffOfNothing(t *testing.T) {
	check(t, nil, nil)
	check(t, nil, []byte("new"))
	check(t, []byte("old"), nil)
	check(t, []byte("a"), []byte("a"))
}

func FuzzDiff(f *testing.F) {
	f.Add([]byte("the quick brown fox"), []byte("the quick red fox, the quick"))
	f.Add(bytes.Repeat([]byte{0}, 100), bytes.Repeat([]byte{0, 1}, 100))
	f.Fuzz(func(t *testing.T, old, new []byte) { check(t, old, new) })
}

func FuzzSuffixes(f *testing.F) {
	f.Add([]byte("mississippi"))
	f.Add([]byte{0, 0, 255, 255, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		got := suffixes(b, 255)
		want := make([]int32, len(b))
		for i := range want {
			want[i] = int32(i)
		}
		slices.SortFunc(want, func(x, y int32) int { return bytes.Compare(b[x:], b[y:]) })
		if !slices.Equal(got, want) {
			t.Fatalf("suffixes of %x are %v, want %v", b, got, want)
		}
	})
}

// The standard library can say where bytes are, though not where the longest are: a judge from outside.
func TestSuffixesOfManyBytes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	b := noise(r, 20_000)
	for i := range b {
		b[i] &= 3
	}
	x, judge := NewIndex(b), suffixarray.New(b)
	for range 200 {
		q := noise(r, 12)
		for i := range q {
			q[i] &= 3
		}
		pos, n := x.longest(q)
		if !bytes.Equal(b[pos:pos+n], q[:n]) || len(judge.Lookup(q[:n], 1)) == 0 || n < len(q) && len(judge.Lookup(q[:n+1], 1)) > 0 {
			t.Fatalf("longest match of %v is %d bytes at %d", q, n, pos)
		}
	}
}
