package qemutests

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"allotment/api"
	"allotment/qemu-tests/vm"
)

// TestKillEveryProcess ends every process of the box in turn, the way nobody can prepare for, and wants each to come back
// by itself and the others to go on.
func TestKillEveryProcess(t *testing.T) {
	p := bootProbes(t)
	for _, name := range []string{"allot-gateway", "allot-resolver", "allot-supervisor"} {
		t.Run(name, func(t *testing.T) { p.testKillProgram(t, name) })
	}
	for _, service := range []string{"main", "hog", "root"} {
		t.Run("probe."+service, func(t *testing.T) { p.testKillService(t, "probe", service) })
	}
	t.Run("the supervisor of a task", p.testKillTask)
	t.Run("crun", p.testKillStart)
	t.Run("PID 1", p.testKillInit)
}

// testKillProgram kills a program of the box itself. No service may notice.
func (p probes) testKillProgram(t *testing.T, name string) {
	life := p.life(t, "probe")
	old := p.program(t, name, 0)
	if err := p.m.API().Signal(t.Context(), old, "SIGKILL"); err != nil && name != "allot-supervisor" {
		t.Fatal(err) // the supervisor cannot answer any more
	}
	p.program(t, name, old)
	p.await(t, "probe")
	if p.life(t, "probe") != life {
		t.Error("a service was started again")
	}
	for _, module := range []string{"probe", "victim", "friend"} {
		p.awaitService(t, module, "main", func(s api.Service) bool { return s.State == "ready" })
	}
}

// program waits until the box's program runs as another process than old, and returns its number.
func (p probes) program(t *testing.T, name string, old int) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	for {
		all, err := p.m.API().Processes(ctx)
		if err != nil && ctx.Err() == nil {
			t.Log(err) // while the supervisor is away
		}
		for _, one := range all {
			if one.Module == "" && one.PID != old && strings.Contains(one.Command, name) {
				return one.PID
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s does not come back", name)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// await asks a module through the gateway until it answers.
func (p probes) await(t *testing.T, module string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	if _, err := p.m.Get(ctx, 80, "/"+module); err != nil {
		t.Fatal(err)
	}
}

func (p probes) testKillService(t *testing.T, module, service string) {
	others := p.life(t, "victim")
	old := p.process(t, module, service)
	if err := p.m.API().Signal(t.Context(), old, "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	p.awaitService(t, module, service, func(s api.Service) bool {
		return s.State == "ready" && s.PID != old && s.Restarts > 0
	})
	if p.life(t, "victim") != others {
		t.Error("a service of another module was started again")
	}
}

// testKillTask kills the supervisor while a service stands still for a task: the task ends with the supervisor that began
// it, and only then the service runs again.
func (p probes) testKillTask(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	go func() {
		for range p.m.API().RunTask(ctx, api.Task{Module: "probe", Kind: api.Backup, Name: "restore"}) {
		}
	}()
	p.awaitService(t, "probe", "hog", func(s api.Service) bool { return s.State == "stopped" })
	task := 0
	for ctx.Err() == nil && task == 0 {
		task = p.restoring(t)
	}
	old := p.program(t, "allot-supervisor", 0)
	p.m.API().Signal(ctx, old, "SIGKILL")
	p.program(t, "allot-supervisor", old)
	p.awaitService(t, "probe", "hog", func(s api.Service) bool { return s.State == "ready" })
	if left := p.restoring(t); task == 0 || left != 0 {
		t.Errorf("the task was process %d, and process %d is left of it", task, left)
	}
}

// restoring is the process of the probe's restore, 0 if there is none.
func (p probes) restoring(t *testing.T) int {
	t.Helper()
	all, err := p.m.API().Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		if one.Module == "probe" && strings.Contains(one.Command, "probe sleep") {
			return one.PID
		}
	}
	return 0
}

// testKillStart kills the runtime while it makes a container. It is at work for a moment only, and listing processes takes
// about as long: hence many tries.
func (p probes) testKillStart(t *testing.T) {
	for range 100 {
		old := p.process(t, "probe", "hog")
		seen := make(chan int, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { seen <- p.killRuntime(ctx) }()
		if err := p.m.API().Restart(t.Context(), "probe", "hog"); err != nil {
			t.Fatal(err)
		}
		p.awaitService(t, "probe", "hog", func(s api.Service) bool { return s.State == "ready" && s.PID != old })
		cancel()
		if pid := <-seen; pid != 0 {
			p.awaitWork(t, "probe", order{What: "ids", On: hog}) // it counts as ready before it listens
			return
		}
	}
	t.Error("the runtime was never seen at work")
}

// awaitWork has a module try something until it works.
func (p probes) awaitWork(t *testing.T, module string, o order) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	for {
		a, err := p.tryAsk(ctx, module, o)
		if err == nil && a.Worked {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v never worked: %s %v", module, o, a.Text, err)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// killRuntime watches the processes until ctx ends, and kills the first one that makes a container.
func (p probes) killRuntime(ctx context.Context) int {
	for ctx.Err() == nil {
		all, err := p.m.API().Processes(ctx)
		if err != nil {
			continue
		}
		for _, one := range all {
			if strings.Contains(one.Command, "crun") && strings.Contains(one.Command, " --detach ") &&
				p.m.API().Signal(ctx, one.PID, "SIGKILL") == nil {
				return one.PID
			}
		}
	}
	return 0
}

// testKillInit ends PID 1, which is the end of the machine's day: it must be a reset, and all is well after it. SIGKILL does
// nothing to PID 1; but a program in Go cannot outlive a fault, be it a real one or one that was sent.
func (p probes) testKillInit(t *testing.T) {
	p.m.API().Signal(t.Context(), 1, "SIGSEGV") // the answer may not come any more
	if _, err := p.m.WaitEvent(t.Context(), "RESET"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.m.WaitLine(t.Context(), anyOK); err != nil {
		t.Fatal(err)
	}
	p.await(t, "probe")
}

// TestClockJumps moves the clock by ten years, forth and back. Nothing that runs may be started again or grow old.
func TestClockJumps(t *testing.T) {
	full(t)
	p := bootProbes(t)
	const tenYears = 10 * 365 * 24 * time.Hour
	life := p.life(t, "probe")
	for _, jump := range []time.Duration{tenYears, -tenYears, -tenYears, tenYears} {
		if err := p.m.API().MoveClock(t.Context(), jump); err != nil {
			t.Fatal(err)
		}
		if err := p.m.API().Restart(t.Context(), "probe", "hog"); err != nil {
			t.Fatal(err)
		}
		p.awaitService(t, "probe", "hog", func(s api.Service) bool { return s.State == "ready" })
		if p.life(t, "probe") != life {
			t.Errorf("after a jump of %v a service was started again", jump)
		}
		p.mustHealthy(t)
	}
}

// mustHealthy looks that every module does well.
func (p probes) mustHealthy(t *testing.T) {
	t.Helper()
	modules, err := p.m.API().Modules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range modules {
		if m.State != "ready" {
			t.Errorf("module %s is %s: %s", m.Name, m.State, m.Problem)
		}
	}
}

// TestRestartStorm has a service die again and again, faster than it can be of use.
func TestRestartStorm(t *testing.T) {
	full(t)
	p := bootProbes(t)
	life := p.life(t, "victim")
	for range 6 {
		s := p.awaitService(t, "probe", "hog", func(s api.Service) bool { return s.PID != 0 && s.State == "ready" })
		if err := p.m.API().Signal(t.Context(), s.PID, "SIGKILL"); err != nil {
			t.Fatal(err)
		}
		p.awaitService(t, "probe", "hog", func(now api.Service) bool { return now.PID != s.PID })
	}
	s := p.awaitService(t, "probe", "hog", func(s api.Service) bool { return s.State == "failed" })
	if s.Restarts > 7 || !strings.Contains(s.Problem, "signal") {
		t.Errorf("the service that died is %+v", s)
	}
	if p.life(t, "victim") != life {
		t.Error("a service of another module was started again")
	}
	// Whoever looks after the box can start it at once.
	if err := p.m.API().Restart(t.Context(), "probe", "hog"); err != nil {
		t.Fatal(err)
	}
	p.awaitService(t, "probe", "hog", func(s api.Service) bool { return s.State == "ready" })
}

// TestLogFlood has a service write a gigabyte of log as fast as it can.
func TestLogFlood(t *testing.T) {
	full(t)
	p := bootProbes(t)
	before, err := p.m.API().Resources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan answer, 1)
	go func() {
		a, err := p.askInside(t.Context(), "probe", order{What: "shout", Args: []string{"1024"}, On: hog})
		if err != nil {
			a.Text = err.Error()
		}
		done <- a
	}()
	slowest := time.Duration(0)
	for flooding := true; flooding; {
		select {
		case a := <-done:
			if !a.Worked {
				t.Errorf("the service that shouts: %+v", a)
			}
			t.Logf("1024 MiB of lines in %s s; meanwhile another module answered within %v", a.Text, slowest)
			flooding = false
		case <-time.After(time.Second):
			began := time.Now()
			p.await(t, "victim")
			slowest = max(slowest, time.Since(began))
		}
	}
	after, err := p.m.API().Resources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if grown := before.DiskFree - after.DiskFree; grown > 64<<20 {
		t.Errorf("the flood took %d MiB of disk", grown>>20)
	}
	if slowest > vm.Patience(20*time.Second) {
		t.Errorf("another module took %v to answer", slowest)
	}
	p.mustHealthy(t)
}

// TestNetworks boots where there is no IPv4, and where there is no network at all: the box gets ready, and its modules reach
// each other.
func TestNetworks(t *testing.T) {
	full(t)
	b, err := probeBuild()
	if err != nil {
		t.Fatal(err)
	}
	for _, network := range []vm.Network{vm.IPv6Only, vm.NoNetwork} {
		t.Run(string(network), func(t *testing.T) {
			p := b.bootProbes(t, vm.Options{DiskSize: diskSize, Network: network})
			p.mustHealthy(t)
			for _, host := range []string{friendIPv4, friendIPv6, "friend.internal"} {
				a, err := p.askInside(t.Context(), "probe", order{What: "tcp", Args: []string{net.JoinHostPort(host, "7001")}})
				if err != nil || !a.Worked {
					t.Errorf("probe does not reach %s: %+v, %v", host, a, err)
				}
			}
		})
	}
}

// askInside asks a probe through the api, where there is no other way, or where it takes longer than the gateway waits.
func (p probes) askInside(ctx context.Context, module string, o order) (a answer, err error) {
	conn, err := p.m.API().DialModule(ctx, module, 8080)
	if err != nil {
		return a, err
	}
	defer conn.Close()
	body, err := json.Marshal(o)
	if err != nil {
		return a, err
	}
	r, err := http.NewRequestWithContext(ctx, "POST", "http://"+module+"/", strings.NewReader(string(body)))
	if err != nil {
		return a, err
	}
	if err := r.Write(conn); err != nil {
		return a, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	return a, json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&a)
}

// TestFullDisk fills the state partition to the last block: the box goes on, says so, and has room again when a module
// gives some back.
func TestFullDisk(t *testing.T) {
	full(t)
	b, err := probeBuild()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(b.raw)
	if err != nil {
		t.Fatal(err)
	}
	p := b.bootProbes(t, vm.Options{DiskSize: info.Size() + 512<<20})
	life := p.life(t, "probe")
	a, err := p.askInside(t.Context(), "victim", order{What: "fill-disk", Args: []string{"/large", "60000", "keep"}})
	if err != nil {
		t.Fatal(err)
	}
	if a.Errno != "ENOSPC" && a.Errno != "EDQUOT" {
		t.Fatalf("the disk does not get full: %+v", a)
	}
	t.Log(a.Text)
	if a := p.ask(t, "friend", order{What: "fill-disk", Args: []string{"/data", "8"}}); a.Worked {
		t.Error("the disk is not full: another module still writes")
	}
	p.awaitDiskLamp(t, api.Bad)
	p.testKillProgram(t, "allot-supervisor") // it must come up without a byte to write
	p.testKillService(t, "probe", "hog")
	if p.life(t, "probe") != life {
		t.Error("a service was started again")
	}
	p.mustWork(t, "victim", order{What: "remove", Args: []string{"/large/filler"}})
	p.awaitDiskLamp(t, api.Good)
	// Room comes back when btrfs has committed the removal.
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	for a = (answer{}); !a.Worked && ctx.Err() == nil; {
		a = p.ask(t, "friend", order{What: "fill-disk", Args: []string{"/data", "8"}})
	}
	if !a.Worked {
		t.Errorf("there is no room again: %+v", a)
	}
}

// awaitDiskLamp waits until the box says that about its disk, which btrfs counts anew with each commit.
func (p probes) awaitDiskLamp(t *testing.T, want api.Level) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	for {
		health, err := p.m.API().Health(ctx)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(health.Lamps, func(l api.Lamp) bool { return l.What == "disk" })
		if health.Lamps[i].Level == want {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the lamp of the disk is %+v, want %s", health.Lamps[i], want)
		case <-time.After(time.Second):
		}
	}
}
