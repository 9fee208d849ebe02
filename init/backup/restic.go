package backup

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"allotment/init/reaper"
)

// Restic runs the program restic.
type Restic struct {
	Reaper  *reaper.Reaper
	Program string   // absolute path
	Args    []string // before restic's own, where Program is one that starts restic
	Helper  string   // program that speaks SSH when its argument is SSHArgument
	Cache   string   // folder
	Owner   int      // user and group that restic runs as; 0: those of this process
	// Sys makes what a process gets beside that, user and control group; writes: it restores files and must own them. Nil:
	// nothing. After is called when the process was started.
	Sys func(writes bool) (sys *syscall.SysProcAttr, after func(), err error)
}

// Errors by which restic tells what an officer can do something about.
var (
	ErrNoRepository = errors.New("there is no backup at the target yet")
	ErrWrongKey     = errors.New("the key does not open the backup at the target")
	ErrLocked       = errors.New("another backup is using the target")
)

// Exit codes of restic 0.18 that have a meaning, see "Scripting" in its manual.
const (
	exitIncomplete   = 3 // some files could not be read, or restored
	exitNoRepository = 10
	exitLocked       = 11
	exitWrongKey     = 12
)

// patience is how long an interrupted restic may take to remove its lock.
const patience = 20 * time.Second

// mostLine bounds a line of restic's output, in bytes; longer ones are not read.
const mostLine = 1 << 20

// memoryLimit keeps restic's own memory below that of its control group, in bytes.
const memoryLimit = "160MiB"

// call is one run of restic.
type call struct {
	repository repository
	writes     bool         // files are restored
	line       func([]byte) // gets each line of the output, which are JSON objects
	output     io.Writer    // gets the output as it is, in place of line
	args       []string
}

// run runs restic to its end, or interrupts it when ctx ends.
func (r Restic) run(ctx context.Context, c call) error {
	out, outW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	said, saidW, err := os.Pipe()
	if err != nil {
		outW.Close()
		return err
	}
	defer said.Close()
	p, err := r.start(c, outW, saidW)
	outW.Close()
	saidW.Close()
	if err != nil {
		return err
	}
	complaint := make(chan string, 1)
	go func() {
		complaint <- complaintOf(said, func() { _ = p.Signal(unix.SIGINT) })
	}()
	stop := context.AfterFunc(ctx, func() {
		_ = p.Signal(unix.SIGINT) // so that it takes its lock away
		time.AfterFunc(patience, func() { _ = p.Signal(unix.SIGKILL) })
	})
	defer stop()
	readErr := c.read(out)
	if readErr != nil {
		_ = p.Signal(unix.SIGINT)
		_, _ = io.Copy(io.Discard, out)
	}
	text := <-complaint
	<-p.Done()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if readErr != nil {
		return readErr
	}
	return failure(p, c.args[0], text)
}

func (r Restic) start(c call, stdout, stderr *os.File) (*reaper.Process, error) {
	args := append(append([]string{}, r.Args...), "--json", "--cleanup-cache")
	args = append(append(args, c.repository.options...), c.args...)
	env := append([]string{
		"PATH=/usr/bin", "HOME=/nonexistent", "RESTIC_CACHE_DIR=" + r.Cache, "TMPDIR=" + r.Cache, "RESTIC_PROGRESS_FPS=1",
		"GOGC=20", "GOMEMLIMIT=" + memoryLimit, "GOMAXPROCS=2",
	}, c.repository.env...)
	spec := reaper.Spec{Path: r.Program, Args: args, Env: env, Stdout: stdout, Stderr: stderr}
	if r.Sys != nil {
		sys, after, err := r.Sys(c.writes)
		if err != nil {
			return nil, err
		}
		defer after()
		spec.Sys = sys
	}
	return r.Reaper.Start(spec)
}

// read gives the output to whom it is for.
func (c call) read(out io.Reader) error {
	if c.output != nil {
		_, err := io.Copy(c.output, out)
		return err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, mostLine)
	for lines.Scan() {
		if c.line != nil && len(lines.Bytes()) > 0 {
			c.line(lines.Bytes())
		}
	}
	return lines.Err()
}

// failure is how restic ended, in the terms of this package.
func failure(p *reaper.Process, command, text string) error {
	switch p.ExitCode() {
	case 0:
		return nil
	case exitNoRepository:
		return ErrNoRepository
	case exitLocked:
		return ErrLocked
	case exitWrongKey:
		return ErrWrongKey
	}
	return &ResticError{Command: command, Code: p.ExitCode(), Text: text}
}

// ResticError is an end of restic that has no name of its own.
type ResticError struct {
	Command string // such as backup
	Code    int    // exit code, or 128 and the signal
	Text    string // what it complained about last
}

// Error implements error.
func (e *ResticError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("restic %s failed with status %d", e.Command, e.Code)
	}
	return fmt.Sprintf("restic %s failed: %s", e.Command, e.Text)
}

// mostComplaint is how much of what restic complains about is kept, in bytes.
const mostComplaint = 2 << 10

// What restic would try again and again for a quarter of an hour, and what stays so.
const (
	full      = "unexpected HTTP response (507)" // a rest-server takes nothing more (RFC 4918, section 11.5)
	untrusted = "failed to verify certificate"
)

// complaintOf reads what restic wrote to its standard error, and returns the last messages in it. It calls hopeless for
// those after which there is no use in going on.
func complaintOf(r io.Reader, hopeless func()) string {
	var kept []byte
	last := ""
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, mostLine)
	for lines.Scan() {
		said := messageOf(lines.Bytes())
		if strings.Contains(said, full) || strings.Contains(said, untrusted) {
			hopeless()
		}
		if said == "" || said == last { // it tells of a file at each attempt
			continue
		}
		last = said
		kept = append(append(kept, said...), '\n')
		kept = kept[max(0, len(kept)-mostComplaint):]
	}
	_, _ = io.Copy(io.Discard, r) // of a line that is too long
	return strings.ToValidUTF8(string(bytes.TrimSpace(kept)), "?")
}

// messageOf is the text of one line, which is a JSON object or plain.
func messageOf(line []byte) string {
	var m struct {
		Message string `json:"message"`
		Error   struct {
			Message string `json:"message"`
		} `json:"error"`
		Item string `json:"item"`
	}
	switch err := json.Unmarshal(line, &m); {
	case err != nil:
		return string(bytes.TrimSpace(line))
	case m.Error.Message != "" && m.Item != "":
		return m.Item + ": " + m.Error.Message
	case m.Error.Message != "":
		return m.Error.Message
	}
	return strings.TrimSpace(m.Message)
}
