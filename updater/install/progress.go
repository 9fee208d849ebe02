package install

import "allotment/image"

// progress counts bytes that are fetched and bytes that are made.
type progress struct {
	report      func(done, total int64)
	done, total int64
	before      int64 // done when the download under way began
	shown       int64
}

// newProgress expects so many bytes to fetch, and those parts that are not done to be made.
func newProgress(report func(done, total int64), fetch int64, want map[image.Digest]*part) *progress {
	p := &progress{report: report, total: fetch}
	for _, w := range want {
		if !w.done {
			p.total += w.Size
		}
	}
	return p
}

// fetched is told how many bytes of a download there are.
func (p *progress) fetched(n int64) {
	p.done = p.before + n
	p.show()
}

// begin notes that a download of n bytes has ended.
func (p *progress) begin(n int64) {
	p.before += n
	p.done = p.before
	p.show()
}

// wrote notes that n more bytes are made.
func (p *progress) wrote(n int64) {
	p.before += n
	p.done = p.before
	p.show()
}

// show reports every MiB, as long as the sum makes sense: what is done twice counts once.
func (p *progress) show() {
	if p.report == nil || p.done < p.shown+mib && p.done < p.total || p.done > p.total {
		return
	}
	p.shown = p.done
	p.report(p.done, p.total)
}
