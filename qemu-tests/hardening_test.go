package qemutests

import (
	"archive/tar"
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"allotment/api"
	"allotment/builder"
	"allotment/builder/lock"
	"allotment/image"
	"allotment/internal/cache"
)

// cage is what a service sees of its own cage; the program probe makes it.
type cage struct {
	Status     map[string]string
	UIDMap     string
	Namespaces map[string]string
	Mounts     []string
	Devices    []string
	CGroup     string
	Refused    []string
	Allowed    []string
	Sysctls    map[string]string
}

func (p probes) cageOf(t *testing.T, module string, o order) (c cage) {
	t.Helper()
	if err := json.Unmarshal([]byte(p.mustWork(t, module, o)), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// testReport prints what a service can and cannot do, and judges it.
func (p probes) testReport(t *testing.T) {
	names := slices.Sorted(maps.Keys(promisedSysctls))
	main := p.cageOf(t, "probe", order{What: "report", Args: names})
	root := p.cageOf(t, "probe", order{What: "report", Args: names, On: namedRoot})
	victim := p.cageOf(t, "victim", order{What: "report"})
	for _, c := range []cage{main, root} {
		c.print(t)
		for _, f := range c.faults() {
			t.Error(f)
		}
	}
	for _, space := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		if main.Namespaces[space] == victim.Namespaces[space] {
			t.Errorf("two modules share the namespace %s", space)
		}
		if main.Namespaces[space] == root.Namespaces[space] && space != "net" {
			t.Errorf("two services of a module share the namespace %s", space)
		}
	}
	if main.UIDMap == victim.UIDMap {
		t.Errorf("two modules have the same ids: %s", main.UIDMap)
	}
	p.judgeSysctls(t, root.Sysctls)
	for line, err := range p.m.API().Logs(t.Context(), api.LogQuery{Lines: -1}) {
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line.Text, "fair shares") {
			t.Errorf("the disk is not shared out: %s", line.Text)
		}
	}
	console, err := os.ReadFile(p.m.Log())
	if err != nil {
		t.Fatal(err)
	}
	if line := regexp.MustCompile(`cannot set [a-z].*`).Find(console); line != nil {
		t.Errorf("PID 1 %s", line)
	}
}

func (c cage) print(t *testing.T) {
	var b strings.Builder
	for _, k := range []string{"Uid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters"} {
		fmt.Fprintf(&b, "\n  %-16s %s", k, c.Status[k])
	}
	fmt.Fprintf(&b, "\n  %-16s %s\n  %-16s %s", "uid_map", c.UIDMap, "cgroup", c.CGroup)
	for _, k := range slices.Sorted(maps.Keys(c.Namespaces)) {
		fmt.Fprintf(&b, "\n  %-16s %s", "namespace", c.Namespaces[k])
	}
	for _, m := range c.Mounts {
		fmt.Fprintf(&b, "\n  %-16s %s", "mount", m)
	}
	fmt.Fprintf(&b, "\n  %-16s %s\n  %-16s %s\n  %-16s %s", "devices", strings.Join(c.Devices, " "),
		"calls refused", strings.Join(c.Refused, " "), "calls allowed", strings.Join(c.Allowed, " "))
	t.Log(b.String())
}

var (
	noCapability = regexp.MustCompile(`^0{16}$`)
	ownRange     = regexp.MustCompile(`^0 1\d{6} 65536$`) // from 2^20 on
)

// faults are what a cage lacks.
func (c cage) faults() []string {
	var all []string
	check := func(ok bool, format string, args ...any) {
		if !ok {
			all = append(all, fmt.Sprintf(format, args...))
		}
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		check(noCapability.MatchString(c.Status[set]), "%s is %s", set, c.Status[set])
	}
	check(c.Status["NoNewPrivs"] == "1", "it may gain privileges")
	check(c.Status["Seccomp"] == "2", "it has no filter of system calls")
	check(ownRange.MatchString(c.UIDMap), "its ids are %q", c.UIDMap)
	check(c.CGroup == "0::/", "it sees its place among the control groups: %s", c.CGroup)
	check(len(c.Allowed) == 1 && strings.HasPrefix(c.Allowed[0], "read "), "it may call %v", c.Allowed)
	check(len(c.Refused) > 40, "only %d calls are refused", len(c.Refused))
	for _, m := range c.Mounts {
		f := strings.Fields(m)
		options := strings.Split(f[2], ",")
		check(f[1] != "sysfs" && f[1] != "cgroup2" && f[1] != "debugfs" && f[1] != "bpf", "it has %s", m)
		empty := strings.HasPrefix(f[0], "/proc/") && slices.Contains(options, "ro") // what covers a masked folder
		check(slices.Contains(options, "nosuid") || empty, "setuid files count in %s", m)
		check(f[0] != "/" || slices.Contains(options, "ro"), "its root can be written to")
	}
	return all
}

func TestCageFaultsAreSeen(t *testing.T) {
	good := func() cage {
		return cage{
			Status: map[string]string{"CapInh": zeros, "CapPrm": zeros, "CapEff": zeros, "CapBnd": zeros, "CapAmb": zeros,
				"NoNewPrivs": "1", "Seccomp": "2"},
			UIDMap: "0 1048576 65536", CGroup: "0::/", Mounts: []string{"/ overlay ro,nosuid,nodev"},
			Allowed: []string{"read (EBADF)"}, Refused: make([]string, 41),
		}
	}
	if f := good().faults(); f != nil {
		t.Errorf("a good cage has faults: %q", f)
	}
	for want, spoil := range map[string]func(*cage){
		"CapBnd":   func(c *cage) { c.Status["CapBnd"] = "0000000000000400" },
		"gain":     func(c *cage) { c.Status["NoNewPrivs"] = "0" },
		"filter":   func(c *cage) { c.Status["Seccomp"] = "0" },
		"its ids":  func(c *cage) { c.UIDMap = "0 0 4294967295" },
		"place":    func(c *cage) { c.CGroup = "0::/allotment/probe/main" },
		"may call": func(c *cage) { c.Allowed = append(c.Allowed, "bpf (EINVAL)") },
		"only":     func(c *cage) { c.Refused = nil },
		"sysfs":    func(c *cage) { c.Mounts = append(c.Mounts, "/sys sysfs ro,nosuid") },
		"setuid":   func(c *cage) { c.Mounts = append(c.Mounts, "/data btrfs rw") },
		"its root": func(c *cage) { c.Mounts[0] = "/ overlay rw,nosuid" },
	} {
		c := good()
		spoil(&c)
		if f := c.faults(); len(f) != 1 || !strings.Contains(f[0], want) {
			t.Errorf("%s: %q", want, f)
		}
	}
}

const zeros = "0000000000000000"

// promisedSysctls are the settings of the running kernel that the box promises. Those that nobody but the host's root can
// read are seen by what they do, or by PID 1 having no complaint.
var promisedSysctls = map[string]string{
	"dev.tty.ldisc_autoload":             "0",
	"fs.suid_dumpable":                   "0",
	"kernel.core_pattern":                "|/nonexistent",
	"kernel.dmesg_restrict":              "1",
	"kernel.io_uring_disabled":           "2",
	"kernel.kexec_load_disabled":         "1",
	"kernel.kptr_restrict":               "2",
	"kernel.panic":                       "5",
	"kernel.panic_on_oops":               "1",
	"kernel.perf_event_paranoid":         "3",
	"kernel.randomize_va_space":          "2",
	"kernel.sysrq":                       "0",
	"kernel.unprivileged_bpf_disabled":   "1",
	"kernel.unprivileged_userns_clone":   "0",
	"kernel.yama.ptrace_scope":           "3",
	"vm.mmap_min_addr":                   "65536",
	"vm.overcommit_memory":               "0",
	"vm.unprivileged_userfaultfd":        "0",
	"fs.protected_fifos":                 "2",
	"fs.protected_hardlinks":             "1",
	"fs.protected_regular":               "2",
	"fs.protected_symlinks":              "1",
	"net.ipv4.conf.all.accept_redirects": "0",
}

// judgeSysctls prints the table of settings and fails on those that are otherwise than promised.
func (p probes) judgeSysctls(t *testing.T, got map[string]string) {
	var b strings.Builder
	seen := 0
	for _, name := range slices.Sorted(maps.Keys(promisedSysctls)) {
		want := promisedSysctls[name]
		value, ok := got[name]
		verdict := "ok"
		switch {
		case !ok:
			verdict = "cannot be read from a module"
		case value != want:
			verdict = "WRONG, want " + want
			t.Errorf("%s is %s, want %s", name, value, want)
		default:
			seen++
		}
		fmt.Fprintf(&b, "\n  %-36s %-16s %s", name, value, verdict)
	}
	t.Log(b.String())
	if seen < len(promisedSysctls)/2 {
		t.Errorf("only %d of %d settings could be read", seen, len(promisedSysctls))
	}
}

// promisedConfig is what the kernel must have been built with. An empty value means not at all.
var promisedConfig = map[string]string{
	"CONFIG_BPF_UNPRIV_DEFAULT_OFF":       "y",
	"CONFIG_DEBUG_WX":                     "y",
	"CONFIG_DEVKMEM":                      "",
	"CONFIG_FORTIFY_SOURCE":               "y",
	"CONFIG_HARDENED_USERCOPY":            "y",
	"CONFIG_INIT_ON_ALLOC_DEFAULT_ON":     "y",
	"CONFIG_LIST_HARDENED":                "y",
	"CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT": "y",
	"CONFIG_MODULE_SIG":                   "y",
	"CONFIG_RANDOMIZE_BASE":               "y",
	"CONFIG_RANDOMIZE_KSTACK_OFFSET":      "y",
	"CONFIG_SCHED_STACK_END_CHECK":        "y",
	"CONFIG_SECCOMP_FILTER":               "y",
	"CONFIG_SECURITY_DMESG_RESTRICT":      "y",
	"CONFIG_SECURITY_LANDLOCK":            "y",
	"CONFIG_SECURITY_LOCKDOWN_LSM":        "y",
	"CONFIG_SECURITY_YAMA":                "y",
	"CONFIG_SHUFFLE_PAGE_ALLOCATOR":       "y",
	"CONFIG_SLAB_FREELIST_HARDENED":       "y",
	"CONFIG_SLAB_FREELIST_RANDOM":         "y",
	"CONFIG_STACKPROTECTOR_STRONG":        "y",
	"CONFIG_STRICT_KERNEL_RWX":            "y",
	"CONFIG_STRICT_MODULE_RWX":            "y",
	"CONFIG_VMAP_STACK":                   "y",
	"CONFIG_IOSCHED_BFQ":                  "m", // shares the disk out among modules
	"CONFIG_BFQ_GROUP_IOSCHED":            "y",
}

func TestKernelConfig(t *testing.T) {
	needMachines(t)
	for _, arch := range []image.Arch{image.AMD64, image.ARM64} {
		config := kernelConfig(t, arch)
		if len(config) < 1000 {
			t.Fatalf("%s: the configuration has only %d settings", arch, len(config))
		}
		for _, f := range configFaults(config) {
			t.Errorf("%s: %s", arch, f)
		}
		config["CONFIG_SECCOMP_FILTER"] = "" // the twin
		if f := configFaults(config); len(f) != 1 {
			t.Errorf("%s: a kernel without filters of system calls has the faults %q", arch, f)
		}
	}
}

func configFaults(config map[string]string) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(promisedConfig)) {
		if got, want := config[name], promisedConfig[name]; got != want {
			all = append(all, fmt.Sprintf("%s is %q, want %q", name, got, want))
		}
	}
	return all
}

// kernelConfig reads the configuration that the kernel's package carries.
func kernelConfig(t *testing.T, arch image.Arch) map[string]string {
	t.Helper()
	source, err := builder.FindSource(".")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lock.Read(filepath.Join(string(source), "profiles", "minimal.lock"))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := cache.Default()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(l.Trees["boot"][arch], func(p lock.Package) bool { return strings.HasPrefix(p.Name, "linux-image-6") })
	if i < 0 {
		t.Fatal("the lock has no kernel")
	}
	f, err := os.Open(dir.Path("data", l.Trees["boot"][arch][i].SHA256.Hex()))
	if errors.Is(err, os.ErrNotExist) {
		minimal(t, arch) // its build unpacks the package
		f, err = os.Open(dir.Path("data", l.Trees["boot"][arch][i].SHA256.Hex()))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("the kernel's package has no configuration: %v", err)
		}
		if strings.HasPrefix(h.Name, "./boot/config-") {
			return parseConfig(r)
		}
	}
}

func parseConfig(r io.Reader) map[string]string {
	config := map[string]string{}
	for s := bufio.NewScanner(r); s.Scan(); {
		if name, value, ok := strings.Cut(s.Text(), "="); ok && strings.HasPrefix(name, "CONFIG_") {
			config[name] = value
		}
	}
	return config
}
