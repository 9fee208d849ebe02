package bsdiff

// suffixes returns the starts of all suffixes of s in the order of those suffixes, by induced sorting (Nong, Zhang and Chan,
// "Two Efficient Algorithms for Linear Time Suffix Array Construction", 2011). No value of s is above top.
func suffixes[T byte | int32](s []T, top int32) []int32 {
	switch len(s) {
	case 0:
		return nil
	case 1:
		return []int32{0}
	}
	t := newSorter(s, top)
	var lms []int32 // starts of the leftmost of each run of S suffixes
	number := make([]int32, len(s))
	for i := range number {
		number[i] = -1
		if i > 0 && !t.small[i-1] && t.small[i] {
			number[i] = int32(len(lms))
			lms = append(lms, int32(i))
		}
	}
	t.induce(lms)
	if len(lms) == 0 {
		return t.sa
	}
	sorted := make([]int32, 0, len(lms))
	for _, v := range t.sa {
		if number[v] >= 0 {
			sorted = append(sorted, v)
		}
	}
	names, highest := t.names(sorted, lms, number)
	if int(highest)+1 == len(lms) { // all differ, so they are sorted already
		t.induce(sorted)
		return t.sa
	}
	for i, v := range suffixes(names, highest) {
		sorted[i] = lms[v]
	}
	t.induce(sorted)
	return t.sa
}

// sorter sorts the suffixes of s when it is told the order of some.
type sorter[T byte | int32] struct {
	s      []T
	small  []bool  // whether the suffix is smaller than the one after it: S, else L
	starts []int32 // of each value's bucket of L suffixes
	ends   []int32 // of each value's bucket of L suffixes, so the starts of those of S suffixes
	sa     []int32
}

func newSorter[T byte | int32](s []T, top int32) *sorter[T] {
	n := len(s)
	t := &sorter[T]{s, make([]bool, n), make([]int32, top+2), make([]int32, top+2), make([]int32, n)}
	for i := n - 2; i >= 0; i-- {
		t.small[i] = s[i] < s[i+1] || s[i] == s[i+1] && t.small[i+1]
	}
	for i, c := range s {
		if t.small[i] {
			t.starts[int32(c)+1]++
		} else {
			t.ends[c]++
		}
	}
	for c := int32(0); c <= top; c++ { // counts become positions
		t.starts[c+1] += t.starts[c] + t.ends[c]
		t.ends[c] += t.starts[c]
	}
	return t
}

// induce sorts all suffixes by those of lms, which are sorted.
func (t *sorter[T]) induce(lms []int32) {
	for i := range t.sa {
		t.sa[i] = -1
	}
	next := append([]int32(nil), t.ends...)
	for _, v := range lms {
		t.sa[next[t.s[v]]] = v
		next[t.s[v]]++
	}
	copy(next, t.starts)
	last := int32(len(t.s) - 1)
	t.sa[next[t.s[last]]] = last
	next[t.s[last]]++
	for i := 0; i < len(t.sa); i++ {
		if v := t.sa[i] - 1; v >= 0 && !t.small[v] {
			t.sa[next[t.s[v]]] = v
			next[t.s[v]]++
		}
	}
	copy(next, t.starts)
	for i := len(t.sa) - 1; i >= 0; i-- {
		if v := t.sa[i] - 1; v >= 0 && t.small[v] {
			c := int32(t.s[v]) + 1
			next[c]--
			t.sa[next[c]] = v
		}
	}
}

// names numbers the substrings between one of lms and the next by their order, equal ones alike, and returns the highest.
func (t *sorter[T]) names(sorted, lms, number []int32) ([]int32, int32) {
	names := make([]int32, len(lms))
	highest := int32(0)
	for i := 1; i < len(sorted); i++ {
		if !t.equal(sorted[i-1], sorted[i], lms, number) {
			highest++
		}
		names[number[sorted[i]]] = highest
	}
	return names, highest
}

// equal compares two substrings that end where the next one begins, its first value included.
func (t *sorter[T]) equal(a, b int32, lms, number []int32) bool {
	end := func(v int32) int32 {
		if next := number[v] + 1; int(next) < len(lms) {
			return lms[next]
		}
		return int32(len(t.s))
	}
	endA, n := end(a), int32(len(t.s))
	if endA-a != end(b)-b {
		return false
	}
	for a < endA && t.s[a] == t.s[b] {
		a, b = a+1, b+1
	}
	return a == endA && a < n && b < n && t.s[a] == t.s[b]
}
