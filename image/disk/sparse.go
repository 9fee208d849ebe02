package disk

import (
	"bytes"
	"context"
	"io"
)

// sparseWriter writes to w from offset at on, and leaves out blocks of zeros, because w holds zeros.
type sparseWriter struct {
	w  io.WriterAt
	at int64
}

var zeros [64 << 10]byte

// Write implements io.Writer.
func (s *sparseWriter) Write(b []byte) (int, error) {
	for done := 0; done < len(b); {
		block := b[done:min(done+len(zeros), len(b))]
		if !bytes.Equal(block, zeros[:len(block)]) {
			if _, err := s.w.WriteAt(block, s.at); err != nil {
				return done, err
			}
		}
		s.at += int64(len(block))
		done += len(block)
	}
	return len(b), nil
}

// meter is a reader that ends with its context and says how much was read.
type meter struct {
	ctx  context.Context
	r    io.Reader
	read func(bytes int64) // may be nil
}

// Read implements io.Reader.
func (m *meter) Read(b []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.r.Read(b)
	if m.read != nil {
		m.read(int64(n))
	}
	return n, err
}
