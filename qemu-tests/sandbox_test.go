package qemutests

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"allotment/internal/run"
	"allotment/qemu-tests/vm"
)

// TestSandbox has a module try what it must not do, all in one machine. What a rule of the declaration forbids, another
// module is allowed and does; what the kernel forbids, root does on the machine that the tests run on.
func TestSandbox(t *testing.T) {
	p := bootProbes(t)
	t.Run("report", p.testReport)
	t.Run("kernel", p.testKernel)
	t.Run("exec", p.testExec)
	t.Run("processes", p.testProcesses)
	t.Run("files", p.testFiles)
	t.Run("secrets", p.testSecrets)
	t.Run("network", p.testNetwork)
	t.Run("registry", p.testRegistry)
	t.Run("load", p.testLoad)
}

// egressPort is the one outside the box that the module friend may connect to.
const egressPort = 7009

// Ports that every probe listens on: 7001 is the one that friend lets probe reach, and 7002 is public with friend.
const (
	peerPort   = 7001
	publicPort = 7002
	udpPort    = 7003
)

// bootProbes boots the machine in which modules try things.
func bootProbes(t *testing.T) probes {
	t.Helper()
	needMachines(t)
	b, err := probeBuild()
	if err != nil {
		t.Fatal(err)
	}
	return b.bootProbes(t, vm.Options{DiskSize: diskSize})
}

func (b *built) bootProbes(t *testing.T, o vm.Options) probes {
	t.Helper()
	o.Tools, o.Firmware, o.Disk, o.Limit = b.tools, vm.BIOS, b.raw, vm.Patience(20*time.Minute)
	if o.Network == vm.BothFamilies {
		o.Forward = []int{80, peerPort, publicPort}
	}
	m := start(t, o)
	line, err := m.WaitLine(t.Context(), anyOutcome)
	if err != nil {
		t.Fatal(err)
	}
	if !anyOK.MatchString(line.Text) {
		t.Fatal(line.Text)
	}
	p := probes{m}
	for _, module := range []string{"probe", "victim", "friend"} { // the gateway hears of them a moment later
		if o.Network == vm.BothFamilies {
			p.await(t, module)
		}
	}
	return p
}

// kernelOrder is something that the kernel refuses, with the errors that stand for that.
type kernelOrder struct {
	order
	refused []string
}

// kernelOrders are what no module may ask of the kernel, be it root in its own namespace or not.
func kernelOrders() []kernelOrder {
	var all []kernelOrder
	for _, what := range []string{
		"mount", "mount-proc", "mount-cgroup", "remount-root", "fsopen", "open-tree", "chroot", "pivot-root", "handle",
		"unshare-user", "unshare-net", "unshare-mount", "setns", "trace-child", "init-module", "finit-module",
		"delete-module", "bpf-map", "bpf-socket-filter", "keyctl", "add-key", "userfaultfd", "io-uring", "clock", "hostname",
		"reboot", "swapoff", "kernel-log", "kexec", "acct", "quotactl", "fanotify", "more-files",
		"socket-raw", "socket-raw6", "socket-packet", "socket-alg", "socket-vsock", "socket-netfilter", "socket-uevent",
	} {
		all = append(all, kernelOrder{order{What: what}, []string{"EPERM"}})
	}
	return append(all,
		kernelOrder{order{What: "perf"}, []string{"EPERM", "EACCES"}},
		kernelOrder{order{What: "priority"}, []string{"EPERM", "EACCES"}},
		kernelOrder{order{What: "umount", Args: []string{"/data"}}, []string{"EPERM"}},
		kernelOrder{order{What: "device", Args: []string{"/data/disk", "254", "0"}}, []string{"EPERM", "EACCES"}},
	)
}

func (p probes) testKernel(t *testing.T) {
	for _, o := range kernelOrders() {
		p.mustFail(t, "probe", o.order, o.refused...)
		o.On = namedRoot
		p.mustFail(t, "probe", o.order, o.refused...)
	}
	p.mustFail(t, "probe", order{What: "setuid", Args: []string{"0"}}, "EPERM")
	p.mustFail(t, "probe", order{What: "setuid", Args: []string{"33"}, On: namedRoot}, "EPERM")
	p.mustFail(t, "probe", order{What: "socket-ping"}, "EACCES")
	p.mustFail(t, "probe", order{What: "privileges-back"}, "EINVAL")
	p.mustFail(t, "probe", order{What: "tty-input"}, "ENOTTY", "EIO", "EPERM")
	p.mustWork(t, "probe", order{What: "socket-route"}) // what lists one's own addresses
}

// notHere are what root of the machine that runs the tests had better not do to it.
var notHere = []string{"remount-root", "clock", "reboot", "delete-module", "umount"}

// TestSandboxTwins does as root, on the machine that runs the tests, what no module can do: the attempts are real ones.
func TestSandboxTwins(t *testing.T) {
	needMachines(t)
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := probeBuild(); err != nil {
		t.Fatal(err)
	}
	var strange []string
	for _, o := range kernelOrders() {
		if slices.Contains(notHere, o.What) {
			continue
		}
		if o.What == "device" {
			o.Args[0] = filepath.Join(t.TempDir(), "disk")
		}
		a := tryHere(t, o.order)
		if !a.Worked && slices.Contains(o.refused, a.Errno) {
			strange = append(strange, fmt.Sprintf("%s (%s)", o.What, a.Text))
		}
	}
	// Some kernels and containers lack a few of them, which says nothing of the attempts.
	if len(strange) > len(kernelOrders())/4 {
		t.Errorf("root cannot do it either: %v", strange)
	}
	t.Logf("cannot be shown here: %v", strange)
}

// tryHere lets the probe try something in namespaces of its own.
func tryHere(t *testing.T, o order) (a answer) {
	t.Helper()
	var out strings.Builder
	args := append([]string{"--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--mount-proc", probeProgram(), "try", o.What}, o.Args...)
	if err := (run.Host{}).Run(t.Context(), run.Command{Name: "unshare", Args: args, Stdout: &out}); err != nil {
		t.Skipf("namespaces cannot be had here: %v", err)
	}
	if err := json.Unmarshal([]byte(out.String()), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// testExec looks that a command which is run in a container later, as a check is, has no more rights than the service.
func (p probes) testExec(t *testing.T) {
	exec := func(command ...string) (a answer) {
		t.Helper()
		var out strings.Builder
		for o, err := range p.m.API().Run(t.Context(), "probe", "main", command...) {
			if err != nil {
				t.Fatal(err)
			}
			out.WriteString(o.Text)
		}
		if err := json.Unmarshal([]byte(out.String()), &a); err != nil {
			t.Fatalf("%v in %q", err, out.String())
		}
		return a
	}
	if a := exec("/usr/bin/probe", "try", "ids"); a.Text != "33 33" {
		t.Errorf("its ids are %+v", a)
	}
	for _, what := range []string{"mount", "unshare-user", "socket-raw", "bpf-map"} {
		if a := exec("/usr/bin/probe", "try", what); a.Worked || a.Errno != "EPERM" {
			t.Errorf("%s ended with %+v", what, a)
		}
	}
	var c cage
	if err := json.Unmarshal([]byte(exec("/usr/bin/probe", "try", "report").Text), &c); err != nil {
		t.Fatal(err)
	}
	c.CGroup = strings.TrimSuffix(c.CGroup, filepath.Base(c.CGroup)) // it has a group of its own below the service's
	for _, f := range c.faults() {
		t.Error(f)
	}
	open := exec("/usr/bin/probe", "try", "inherited-files").Text
	for f := range strings.Lines(open) {
		if !regexp.MustCompile(`^[012] (/dev/null|pipe:\[\d+\])$`).MatchString(strings.TrimSpace(f)) {
			t.Errorf("the runtime left a file open: %s", f)
		}
	}
}

func (p probes) testProcesses(t *testing.T) {
	for _, name := range strings.Fields(p.mustWork(t, "probe", order{What: "processes"})) { // threads count
		if name != "probe" {
			t.Errorf("a service sees the process %q", name)
		}
	}
	all, err := p.m.API().Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, other := range all {
		if other.PID < 10 || other.Module == "probe" || tried == 20 {
			continue
		}
		tried++
		number := strconv.Itoa(other.PID)
		for _, what := range []string{"trace", "read-memory", "signal"} {
			p.mustFail(t, "probe", order{What: what, Args: []string{number}}, "ESRCH", "EPERM")
		}
		p.mustFail(t, "probe", order{What: "read", Args: []string{"/proc/" + number + "/environ"}}, "ENOENT")
	}
	if tried < 3 {
		t.Errorf("the box has only %d other processes", tried)
	}
	open := strings.Split(p.mustWork(t, "probe", order{What: "inherited-files"}), "\n")
	allowed := regexp.MustCompile(`^[012] (/dev/null|/run/allotment/services/probe\.main/output)$`)
	for _, f := range open {
		if !allowed.MatchString(f) {
			t.Errorf("the runtime left a file open: %s", f)
		}
	}
}

func (p probes) testFiles(t *testing.T) {
	for _, path := range []string{"/x", "/etc/x", "/usr/bin/x", "/var/lib/x"} {
		p.mustFail(t, "probe", order{What: "create", Args: []string{path}}, "EROFS", "EACCES")
		p.mustFail(t, "probe", order{What: "create", Args: []string{path}, On: namedRoot}, "EROFS")
	}
	p.mustWork(t, "probe", order{What: "create", Args: []string{"/data/x"}})
	p.mustWork(t, "probe", order{What: "create", Args: []string{"/tmp/x"}})
	p.mustWork(t, "probe", order{What: "create", Args: []string{"/tmp/x"}, On: namedRoot})
	p.mustFail(t, "probe", order{What: "create", Args: []string{"/data/y"}, On: hog}, "EACCES") // another user's
	for _, path := range []string{"/proc/sys/kernel/hostname", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/vm/swappiness", "/proc/self/uid_map"} {
		p.mustFail(t, "probe", order{What: "write", Args: []string{path, "1"}, On: namedRoot}, "EROFS", "EACCES", "EPERM")
	}
	p.mustFail(t, "probe", order{What: "write", Args: []string{"/proc/self/oom_score_adj", "-500"}, On: namedRoot}, "EACCES")
	p.mustWork(t, "probe", order{What: "write", Args: []string{"/proc/self/oom_score_adj", "900"}, On: namedRoot})
	if a := p.ask(t, "probe", order{What: "list", Args: []string{"/sys"}, On: namedRoot}); a.Text != "" && a.Worked {
		t.Errorf("/sys holds %s", a.Text)
	}
	for _, path := range []string{"/proc/kcore", "/proc/kallsyms", "/proc/modules", "/proc/cmdline", "/proc/keys"} {
		if a := p.ask(t, "probe", order{What: "read", Args: []string{path}, On: namedRoot}); a.Worked && a.Text != "" {
			t.Errorf("%s tells %q", path, a.Text)
		}
	}
	want := "core fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
	if got := p.mustWork(t, "probe", order{What: "list", Args: []string{"/dev"}}); got != want {
		t.Errorf("/dev has %s", got)
	}
	p.testSetuid(t)
	// Links lead nowhere but into the module's own tree.
	p.mustWork(t, "probe", order{What: "link", Args: []string{"/run/allotment/secrets/victim/token", "/data/link"}})
	p.mustFail(t, "probe", order{What: "read", Args: []string{"/data/link"}}, "ENOENT", "EACCES")
	p.mustWork(t, "probe", order{What: "link", Args: []string{"/etc/who", "/data/own"}})
	if got := p.mustWork(t, "probe", order{What: "read", Args: []string{"/data/own"}}); got != "probe\n" {
		t.Errorf("the module reads %q", got)
	}
	p.mustFail(t, "probe", order{What: "subvolume", Args: []string{"/data"}}, "EPERM")
	p.mustFail(t, "probe", order{What: "xattr", Args: []string{"/data", "trusted.allotment.format"}, On: namedRoot}, "EPERM")
	p.mustWork(t, "probe", order{What: "xattr", Args: []string{"/data", "user.probe"}})
}

// testSetuid looks that a file that sets its owner's id gives nothing, be it in a layer or in a volume.
func (p probes) testSetuid(t *testing.T) {
	try := []string{"/usr/bin/probe-setuid", "try", "ids"}
	if got := p.mustWork(t, "probe", order{What: "run", Args: try}); !strings.Contains(got, `"33 33"`) {
		t.Errorf("through a file of a layer the service has the ids %s", got)
	}
	for _, folder := range []string{"/data", "/tmp"} {
		p.mustFail(t, "probe", order{What: "setuid-copy", Args: []string{folder}}, "EACCES")
	}
	if os.Getuid() != 0 {
		return
	}
	// The twin: the same file where it may.
	dir, err := os.MkdirTemp("", "allot-setuid-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	program, err := os.ReadFile(probeProgram())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "setuid")
	if err := os.WriteFile(file, program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, file} {
		if err := os.Chmod(path, 0o755|os.ModeSetuid); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	err = run.Host{}.Run(t.Context(), run.Command{Name: "setpriv", Stdout: &out,
		Args: []string{"--reuid=65534", "--clear-groups", file, "try", "ids"}})
	if err != nil {
		t.Logf("the twin cannot be run here: %v", err)
	} else if !strings.Contains(out.String(), `"65534 0"`) {
		t.Errorf("the file sets no id: %s", out.String())
	}
}

func (p probes) testSecrets(t *testing.T) {
	const secret, rendered = "/run/secrets/token", "/run/config/probe.conf"
	own := p.mustWork(t, "probe", order{What: "read", Args: []string{secret}})
	if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(own) {
		t.Errorf("the secret is %q", own)
	}
	if got := p.mustWork(t, "probe", order{What: "read", Args: []string{rendered}}); !strings.Contains(got, "address = 10.209.0.2") {
		t.Errorf("the rendered file says %q", got)
	}
	for _, path := range []string{secret, rendered} {
		p.mustFail(t, "probe", order{What: "write", Args: []string{path, "x"}}, "EROFS", "EACCES")
		for _, other := range []string{hog, namedRoot} { // other users of the same module
			p.mustFail(t, "probe", order{What: "read", Args: []string{path}, On: other}, "EACCES")
		}
	}
	others := p.mustWork(t, "victim", order{What: "read", Args: []string{secret}})
	if others == own {
		t.Error("two modules have the same secret")
	}
	p.mustFail(t, "probe", order{What: "find", Args: []string{others}}, "ENOENT")
	p.mustFail(t, "probe", order{What: "find", Args: []string{others}, On: namedRoot}, "ENOENT")
	if got := p.mustWork(t, "victim", order{What: "find", Args: []string{others}}); !strings.HasPrefix(got, "/run/secrets/") {
		t.Errorf("the twin finds its secret in %q", got)
	}
	p.mustWork(t, "victim", order{What: "create", Args: []string{"/data/letter"}})
	p.mustFail(t, "probe", order{What: "read", Args: []string{"/data/letter"}}, "ENOENT")
	p.mustWork(t, "victim", order{What: "read", Args: []string{"/data/letter"}})
	console, err := os.ReadFile(p.m.Log())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{own, others} {
		if strings.Contains(string(console), s) {
			t.Error("a secret is on the console")
		}
	}
}

// Addresses of the modules by their place in the profile, and of the host.
const (
	hostIPv4, hostIPv6     = "10.209.0.1", "fd00:a110::1"
	victimIPv4, victimIPv6 = "10.209.0.3", "fd00:a110::3"
	friendIPv4, friendIPv6 = "10.209.0.4", "fd00:a110::4"
	uplinkGateway          = "10.0.2.2" // QEMU's, which leads to the machine that runs the tests
)

// unreachable are the errors of a connection that a firewall does not let through.
var unreachable = []string{"ETIMEDOUT", "ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "EACCES", "EPERM"}

func (p probes) testNetwork(t *testing.T) {
	tcp := func(host string, port int) order {
		return order{What: "tcp", Args: []string{net.JoinHostPort(host, strconv.Itoa(port))}}
	}
	outside, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", egressPort))
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	// What is allowed.
	for _, host := range []string{friendIPv4, friendIPv6, "friend.internal"} {
		if got := p.mustWork(t, "probe", tcp(host, peerPort)); !strings.Contains(got, "you reached the probe") {
			t.Errorf("%s says %q", host, got)
		}
	}
	p.mustWork(t, "friend", tcp(uplinkGateway, egressPort))
	p.mustWork(t, "probe", order{What: "udp", Args: []string{hostIPv4 + ":53"}})
	p.mustWork(t, "probe", order{What: "resolve", Args: []string{"friend.internal"}})
	for _, own := range []string{"127.0.0.1", "::1"} {
		p.mustWork(t, "victim", tcp(own, peerPort)) // so it listens
	}
	// What is not: the same ports of another peer, other ports of the same peer, the other way round.
	for _, o := range []order{
		tcp(victimIPv4, peerPort), tcp(victimIPv6, peerPort), tcp(victimIPv4, 8080), tcp(victimIPv6, 8080),
		tcp(friendIPv4, publicPort), tcp(friendIPv6, publicPort), tcp(friendIPv4, 8080),
		{What: "udp", Args: []string{net.JoinHostPort(friendIPv4, strconv.Itoa(udpPort))}},
		{What: "udp", Args: []string{net.JoinHostPort(friendIPv6, strconv.Itoa(udpPort))}},
		{What: "spoof", Args: []string{net.JoinHostPort(victimIPv4, "7001"), friendIPv4}},
		{What: "spoof", Args: []string{net.JoinHostPort(victimIPv6, "7001"), friendIPv6}},
		{What: "spoof", Args: []string{net.JoinHostPort(friendIPv6, "7001"), victimIPv6}},
		tcp("169.254.169.254", 80), tcp("fd00:ec2::254", 80),
		tcp(hostIPv4, 80), tcp(hostIPv4, 22), tcp(hostIPv6, 80), tcp("10.0.2.15", 80),
		tcp(uplinkGateway, egressPort), tcp(uplinkGateway, 53), tcp("10.0.2.3", 53),
		tcp("192.0.2.1", 80), tcp("2001:db8::1", 80),
	} {
		a := p.ask(t, "probe", o)
		if a.Worked || !slices.Contains(append(unreachable, "EINVAL", "EADDRNOTAVAIL"), a.Errno) {
			t.Errorf("probe: %v ended with %+v", o, a)
		}
	}
	for _, o := range []order{
		tcp("10.209.0.2", 8080), tcp("10.0.2.2", egressPort+1), tcp("169.254.169.254", egressPort), tcp(hostIPv4, egressPort),
		tcp(victimIPv4, egressPort),
	} {
		p.mustFail(t, "friend", o, unreachable...)
	}
	a := p.ask(t, "victim", order{What: "link-local"})
	if a.Worked {
		p.mustFail(t, "probe", order{What: "tcp", Args: []string{"[" + a.Text + "]:7001"}}, append(unreachable, "EINVAL")...)
	}
	p.testFromOutside(t)
}

// testFromOutside looks that the public port of a module answers, and says who asked, and that its other ports do not.
func (p probes) testFromOutside(t *testing.T) {
	if got := greetingOf(t, p.m.Address(publicPort)); !strings.Contains(got, uplinkGateway) {
		t.Errorf("the public port says %q, want that the client is %s", got, uplinkGateway)
	}
	if got := greetingOf(t, p.m.Address(peerPort)); got != "" {
		t.Errorf("a port that is not exposed says %q", got)
	}
}

// greetingOf connects and reads what it is told; "" where QEMU could not connect on.
func greetingOf(t *testing.T, address string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 256)
	n, _ := c.Read(b)
	more, _ := c.Read(b[n:])
	return string(b[:n+more])
}
