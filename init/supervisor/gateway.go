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

	"golang.org/x/sys/unix"

	"allotment/gateway"
	"allotment/image"
	"allotment/init/container"
	"allotment/init/reaper"
	"allotment/init/servicelog"
)

// GatewayID is the user and group of the gateway, allotment-gateway; no module's range holds it.
const GatewayID = 901

// loopback is where the gateway is asked whether it answers.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

const gatewayTimeout = 30 // seconds until its first answer

// The gateway's cgroup and what it may use: it holds little, and as many connections as its own limits allow.
const (
	gatewayCgroup = "/allotment-gateway"
	gatewayMemory = 128 << 20 // bytes
	gatewayPIDs   = 128       // threads count
	gatewayWeight = 200
)

// gatewayJob runs the gateway.
type gatewayJob struct {
	program string
	config  string // file
	pid     string // file
	listen  string // address
	cgroup  string // folder
	reaper  *reaper.Reaper
	output  *os.File
	socket  *os.File // kept, so that clients wait instead of being refused while it restarts
}

// newGatewayJob prepares the gateway's files in dir and its cgroup below the folder cgroups; it returns the end of the
// pipe from which the gateway's messages come.
func newGatewayJob(program, dir, listen, cgroups string, r *reaper.Reaper) (*gatewayJob, *os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, fmt.Errorf("cannot prepare the gateway: %w", err)
	}
	if err := container.Limit(cgroups, gatewayCgroup, gatewayMemory, gatewayPIDs, gatewayWeight); err != nil {
		return nil, nil, fmt.Errorf("cannot prepare the gateway: %w", err)
	}
	output, reader, err := servicelog.Pipe(filepath.Join(dir, "output"), GatewayID, GatewayID)
	if err != nil {
		return nil, nil, err
	}
	return &gatewayJob{
		program: program, config: filepath.Join(dir, "config.json"), pid: filepath.Join(dir, "pid"), listen: listen,
		cgroup: filepath.Join(cgroups, gatewayCgroup), reaper: r, output: output,
	}, reader, nil
}

// find trusts the pid file as far as the process is one of this program.
func (j *gatewayJob) find() *reaper.Process {
	b, err := os.ReadFile(j.pid)
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return nil
	}
	p, err := j.reaper.Attach(pid)
	if err != nil {
		return nil
	}
	if program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || program != j.program {
		return nil
	}
	return p
}

func (j *gatewayJob) start(context.Context) (*reaper.Process, error) {
	if j.socket == nil {
		l, err := net.Listen("tcp", j.listen)
		if err != nil {
			return nil, fmt.Errorf("cannot listen for the gateway: %w", err)
		}
		defer l.Close()
		if j.socket, err = l.(*net.TCPListener).File(); err != nil {
			return nil, fmt.Errorf("cannot listen for the gateway: %w", err)
		}
	}
	group, err := os.Open(j.cgroup)
	if err != nil {
		return nil, fmt.Errorf("cannot start the gateway: %w", err)
	}
	defer group.Close()
	p, err := j.reaper.Start(reaper.Spec{
		Path: j.program, Args: []string{j.config}, Stdout: j.output, Stderr: j.output, Extra: []*os.File{j.socket},
		Sys: &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: GatewayID, Gid: GatewayID}, UseCgroupFD: true, CgroupFD: int(group.Fd()),
		},
	})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(j.pid, []byte(strconv.Itoa(p.PID())), 0o644); err != nil {
		j.kill(p) // or a second one would be started beside it
		return nil, fmt.Errorf("cannot start the gateway: %w", err)
	}
	return p, nil
}

func (j *gatewayJob) check(ctx context.Context) error {
	_, port, err := net.SplitHostPort(j.listen)
	if err != nil {
		return err
	}
	return awaitReady(ctx, image.Check{HTTP: ":" + port + gateway.HealthPath, Timeout: gatewayTimeout}, loopback)
}

func (j *gatewayJob) signal(p *reaper.Process) error { return p.Signal(unix.SIGTERM) }

func (j *gatewayJob) kill(p *reaper.Process) { p.Signal(unix.SIGKILL) }

func (j *gatewayJob) cleanup(context.Context) string {
	os.Remove(j.pid)
	return ""
}

// reloadGateway makes the gateway read its configuration again. Before it is ready the signal would end it, so this is
// called once more when it gets ready.
func (s *Supervisor) reloadGateway() {
	if s.gateway.machine.state == ready {
		s.gateway.process.Signal(unix.SIGHUP)
	}
}

// writeRoutes tells the gateway where the modules are if that is another state than before.
func (s *Supervisor) writeRoutes() {
	var c gateway.Config
	for _, m := range s.plan.Modules {
		if m.HTTP == nil {
			continue
		}
		target := "http://" + net.JoinHostPort(m.IPv4.Addr().String(), strconv.Itoa(m.HTTP.Port))
		c.Routes = append(c.Routes, gateway.Routes(m.HTTP, m.Title, target, allIn(s.unitsOf[m], ready))...)
	}
	b, err := json.Marshal(c)
	if err != nil || string(b) == s.routes {
		return
	}
	next := s.routesFile + ".new"
	if err = os.WriteFile(next, b, 0o644); err == nil {
		err = os.Rename(next, s.routesFile)
	}
	if err != nil {
		s.log.Error("cannot tell the gateway where the modules are", "error", err)
		return
	}
	s.routes = string(b)
	s.reloadGateway()
}
