package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"allotment/image"
	"allotment/init/check"
	"allotment/init/container"
	"allotment/init/plan"
	"allotment/init/reaper"
	"allotment/init/servicelog"
)

// daemonConfig says what is special about one of our own programs that run beside the supervisor.
type daemonConfig struct {
	name    string // of its log and its folder
	program string
	id      int                         // user and group; no module's range holds it
	caps    []uintptr                   // capabilities(7) that it has nevertheless
	memory  int64                       // bytes
	pids    int64                       // threads count
	weight  int                         // cgroup v2 cpu.weight
	listen  func() ([]*os.File, error)  // makes its sockets, from file descriptor 3 on
	ready   image.Check                 // how it is asked
	ask     func(context.Context) error // in place of what ready asks; nil: that

	informed bool // it was told all before it was started, and need not read that again
}

// daemon runs such a program, unprivileged in the host's network. It takes what to do from a file, whose path is its only
// argument, and reads it again at SIGHUP.
type daemon struct {
	daemonConfig
	config  string // file
	pid     string // file
	cgroup  string // folder
	told    string // what the file says
	reaper  *reaper.Reaper
	output  *os.File
	sockets []*os.File // kept, so that clients wait instead of being refused while it restarts
}

const (
	daemonStop = 10 * time.Second // until it is killed
	daemonLive = 30               // seconds between questions
)

// loopback is where daemons are asked whether they answer.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// addDaemon makes a unit of the program, with its files, cgroup and log.
func (s *Supervisor) addDaemon(c daemonConfig) (*unit, error) {
	dir := filepath.Join(s.config.Run, c.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot prepare the %s: %w", c.name, err)
	}
	group := "/allotment-" + c.name
	if err := container.Limit(s.config.Container.Cgroup, group, c.memory, c.pids, c.weight); err != nil {
		return nil, fmt.Errorf("cannot prepare the %s: %w", c.name, err)
	}
	output, reader, err := servicelog.Pipe(filepath.Join(dir, "output"), c.id, c.id)
	if err != nil {
		return nil, err
	}
	go func() {
		if err := servicelog.Copy(s.config.Log.Part(c.name), reader, time.Now); err != nil {
			s.warn(err)
		}
	}()
	d := &daemon{
		daemonConfig: c, config: filepath.Join(dir, "config.json"), pid: filepath.Join(dir, "pid"),
		cgroup: filepath.Join(s.config.Container.Cgroup, group), reaper: s.reaper, output: output,
	}
	u := &unit{name: c.name, importance: plan.Core, job: d, machine: machine{state: waiting, since: s.now()}}
	s.daemons = append(s.daemons, u)
	return u, nil
}

// configure tells a daemon what to do if that is something else than before.
func (s *Supervisor) configure(u *unit, config any) {
	d, ok := u.job.(*daemon)
	if !ok {
		return
	}
	b, err := json.Marshal(config)
	if err != nil || string(b) == d.told {
		return
	}
	next := d.config + ".new"
	if err = os.WriteFile(next, b, 0o644); err == nil {
		err = os.Rename(next, d.config)
	}
	if err != nil {
		s.log.Error("cannot configure a daemon", "unit", u.name, "error", err)
		return
	}
	d.told = string(b)
	if u.machine.state == ready { // before that the signal would end it, so it is sent once more when it gets ready
		d.reload(u.process)
	}
}

// find trusts the pid file as far as the process is one of this program.
func (d *daemon) find() *reaper.Process {
	b, err := os.ReadFile(d.pid)
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return nil
	}
	p, err := d.reaper.Attach(pid)
	if err != nil {
		return nil
	}
	if program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || program != d.program {
		return nil
	}
	return p
}

func (d *daemon) start(context.Context) (*reaper.Process, error) {
	if d.sockets == nil {
		sockets, err := d.listen()
		if err != nil {
			return nil, fmt.Errorf("cannot listen for the %s: %w", d.name, err)
		}
		d.sockets = sockets
	}
	group, err := os.Open(d.cgroup)
	if err != nil {
		return nil, fmt.Errorf("cannot start the %s: %w", d.name, err)
	}
	defer group.Close()
	p, err := d.reaper.Start(reaper.Spec{
		Path: d.program, Args: []string{d.config}, Stdout: d.output, Stderr: d.output, Extra: d.sockets,
		Sys: &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: uint32(d.id), Gid: uint32(d.id)}, UseCgroupFD: true, CgroupFD: int(group.Fd()),
			AmbientCaps: d.caps,
		},
	})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(d.pid, []byte(strconv.Itoa(p.PID())), 0o644); err != nil {
		d.kill(p) // or a second one would be started beside it
		return nil, fmt.Errorf("cannot start the %s: %w", d.name, err)
	}
	return p, nil
}

func (d *daemon) question() check.Question {
	if d.ask != nil {
		return d.ask
	}
	return check.New(d.ready, loopback, nil)
}

func (d *daemon) check(ctx context.Context) error {
	return check.AwaitReady(ctx, d.ready, d.question())
}

func (d *daemon) live(ctx context.Context) error {
	return check.AwaitDead(ctx, image.Check{Every: daemonLive, Timeout: 10, Failures: 3}, d.question())
}

func (d *daemon) reload(p *reaper.Process) error { return p.Signal(unix.SIGHUP) }

func (d *daemon) signal(p *reaper.Process) (time.Duration, error) {
	return daemonStop, p.Signal(unix.SIGTERM)
}

func (d *daemon) kill(p *reaper.Process) { p.Signal(unix.SIGKILL) }

func (d *daemon) cleanup(context.Context) string {
	os.Remove(d.pid)
	return ""
}

// datagramBuffer is how much may wait at a socket for datagrams, in bytes: QUIC sends in bursts.
const datagramBuffer = 7 << 20

// listenUDP opens a socket for a daemon.
func listenUDP(address string) ([]*os.File, error) {
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	f, err := c.(*net.UDPConn).File()
	if err != nil {
		return nil, err
	}
	for _, option := range []int{unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} { // which the daemon may not
		if err := unix.SetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, option, datagramBuffer); err != nil {
			f.Close()
			return nil, err
		}
	}
	return []*os.File{f}, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// listenTCP opens a socket for a daemon.
func listenTCP(address string) ([]*os.File, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, err
	}
	return []*os.File{f}, nil
}
