package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestReport(t *testing.T) {
	second := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	boots := func(cpu ...float64) (all []boot) {
		for _, c := range cpu {
			all = append(all, boot{
				kernel: cost{second(2), second(1)}, page: cost{second(c + 2), second(c)},
				idle: cost{second(20), second(0.2)}, used: 50 << 20,
			})
		}
		return all
	}
	r := report{
		profile: "garden-club", runs: 3, host: "2 x test", load: []string{"0.1", "0.2", "0.3"},
		ours: system{builds{cold: cost{second(60), second(80)}, changed: cost{wall: second(4)}, download: 80e6, base: 50e6, size: 2e8}, boots(99, 10, 11)},
		peer: system{builds{cold: cost{second(120), second(90)}, download: 160e6, size: 1e9}, boots(21, 41, 31)},
	}
	text := r.String()
	for _, want := range []string{
		"| build from nothing, s | 60 | 120 | 0.50 |  |\n",
		"| build, one file of a module changed, s | 4.0 |  |  | under 10 |\n",
		"| download (zstd), MB | 80 | 160 | 0.50 |  |\n",
		"| download without modules, MB | 50 |  |  | under 90 |\n",
		"| power-on to page, CPU s | 11 | 31 | 0.35 |  |\n",
		"| kernel start to page, CPU s | 10 | 30 | 0.33 | ratio at most 0.5 |\n",
		"| memory in use when idle, MiB | 50 | 50 | 1.00 | base under 64 |\n",
		"| CPU when idle, % of one | 1.0 | 1.0 | 1.00 |  |\n",
		"Load averages: 0.1, then 0.2, then 0.3.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
}

func TestWeigh(t *testing.T) {
	image := make([]byte, 10*4096+100)
	image[4096] = 1
	image[10*4096+99] = 1
	size, data, err := weigh(bytes.NewReader(image))
	if err != nil || size != 10*4096+100 || data != 4096+100 {
		t.Errorf("size %d, data %d, error %v", size, data, err)
	}
}

func TestTimedCountsChildren(t *testing.T) {
	c, err := timed(func() error {
		return command(t.Context(), "sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.cpu <= 0 || c.wall <= 0 {
		t.Errorf("a busy child took %v of CPU in %v", c.cpu, c.wall)
	}
	if c, _ := timed(func() error { return nil }); c.cpu != 0 {
		t.Errorf("nothing took %v of CPU", c.cpu)
	}
}
