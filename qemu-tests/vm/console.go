package vm

import (
	"bytes"
	"io"
	"regexp"
	"sync"
)

// longestLine bounds what is kept of a console line that never ends, in bytes.
const longestLine = 4096

// control are the terminal sequences (ECMA-48) and control characters that firmware and boot loaders paint with.
var control = regexp.MustCompile(`\x1b\[[0-9;?=]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>78cDMEH]|[\x00-\x08\x0b-\x1f\x7f]`)

// console takes the bytes of a serial line: it keeps them all in log and hands on each whole line without terminal
// sequences.
type console struct {
	log  io.Writer
	line func(text string)

	mu      sync.Mutex
	partial []byte
}

// Write implements io.Writer. It fails only when the log cannot be written.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n, err := c.log.Write(p); err != nil {
		return n, err
	}
	c.partial = append(c.partial, p...)
	for {
		i := bytes.IndexByte(c.partial, '\n')
		if i < 0 && len(c.partial) < longestLine {
			return len(p), nil
		}
		if i < 0 {
			i = longestLine - 1
		}
		c.emit(c.partial[:i+1])
		c.partial = c.partial[i+1:]
	}
}

// flush hands on what is left when the line ends in the middle.
func (c *console) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.partial) > 0 {
		c.emit(c.partial)
		c.partial = nil
	}
}

func (c *console) emit(raw []byte) {
	if text := string(control.ReplaceAll(bytes.TrimRight(raw, "\r\n"), nil)); text != "" {
		c.line(text)
	}
}
