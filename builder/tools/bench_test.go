package tools

import (
	"testing"

	"allotment/internal/progress"
	"allotment/internal/run"
)

func BenchmarkOpen(b *testing.B) {
	c, f := cacheDir(b), fetcher(b)
	for b.Loop() {
		if _, err := Open(b.Context(), c, f, progress.Silent{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRun(b *testing.B) {
	c, f := cacheDir(b), fetcher(b)
	r, err := Open(b.Context(), c, f, progress.Silent{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := r.Run(b.Context(), run.Command{Name: "true"}); err != nil {
			b.Fatal(err)
		}
	}
}
