package container

import (
	"fmt"
	"path"
	"runtime"
	"slices"
	"strconv"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"allotment/init/plan"
)

// Limits that every container has beside those of its module.
const (
	openFiles   = 65536
	tmpfsBytes  = 64 << 20 // of each in-memory folder; its pages count as the module's memory, too
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// Where a service finds what was rendered for its module and the module's secrets.
const (
	configAt  = "/run/config"
	secretsAt = "/run/secrets"
)

// maskedPaths hide what the kernel tells about the host; readonlyPaths are what even root in a container must not write.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/bus", "/proc/cmdline", "/proc/config.gz", "/proc/dynamic_debug", "/proc/interrupts",
		"/proc/iomem", "/proc/ioports", "/proc/kallsyms", "/proc/kcore", "/proc/key-users", "/proc/keys", "/proc/kmsg",
		"/proc/latency_stats", "/proc/modules", "/proc/sched_debug", "/proc/scsi", "/proc/slabinfo", "/proc/sysrq-trigger",
		"/proc/timer_list", "/proc/timer_stats", "/proc/vmallocinfo", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonlyPaths = []string{"/proc/fs", "/proc/irq", "/proc/sys"}
)

// places are the paths on the host that a service's container is made of.
type places struct {
	root, network, resolv, hosts string
	config, secrets              string            // folders
	volumes                      map[string]string // by the volume's name
}

// newSpec describes the container of s in the terms of the OCI runtime specification 1.2.
func newSpec(s *plan.Service, at places) (*specs.Spec, error) {
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: s.Module.FirstID, Size: plan.IDs}}
	spec := &specs.Spec{
		Version:  "1.0.2",
		Root:     &specs.Root{Path: at.root, Readonly: true},
		Hostname: s.Module.Name,
		Process:  newProcess(s),
		Mounts:   newMounts(s, at),
		Linux: &specs.Linux{
			UIDMappings:   ids,
			GIDMappings:   ids,
			CgroupsPath:   s.Cgroup,
			Resources:     newResources(s),
			MaskedPaths:   maskedPaths,
			ReadonlyPaths: readonlyPaths,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.CgroupNamespace},
				{Type: specs.UserNamespace},
				{Type: specs.NetworkNamespace, Path: at.network},
			},
		},
	}
	filter, err := seccomp.GetDefaultProfile(spec) // reads the capabilities from the spec
	if err != nil {
		return nil, fmt.Errorf("cannot make the system call filter of %q: %w", s.ID, err)
	}
	filter.Architectures = []specs.Arch{nativeArch()} // the trees hold no binaries of sister architectures
	filter.Syscalls = narrowIoctl(narrowSockets(filter.Syscalls))
	spec.Linux.Seccomp = filter
	return spec, nil
}

// socketFamilies are what services may make sockets of. For any other family the kernel would look for a module to load, as
// root and outside the container's limits. Of netlink there is what lists a service's own addresses, NETLINK_ROUTE.
var socketFamilies = []uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// narrowSockets replaces the default profile's rules for socket(2), which leave out just a few families.
func narrowSockets(rules []specs.LinuxSyscall) []specs.LinuxSyscall {
	rules = slices.DeleteFunc(slices.Clone(rules), func(r specs.LinuxSyscall) bool {
		return len(r.Names) == 1 && r.Names[0] == "socket"
	})
	for _, family := range socketFamilies {
		args := []specs.LinuxSeccompArg{{Index: 0, Value: family, Op: specs.OpEqualTo}}
		if family == unix.AF_NETLINK {
			args = append(args, specs.LinuxSeccompArg{Index: 2, Value: unix.NETLINK_ROUTE, Op: specs.OpEqualTo})
		}
		rules = append(rules, specs.LinuxSyscall{Names: []string{"socket"}, Action: specs.ActAllow, Args: args})
	}
	return rules
}

func nativeArch() specs.Arch {
	if runtime.GOARCH == "arm64" {
		return specs.ArchAARCH64
	}
	return specs.ArchX86_64
}

func newProcess(s *plan.Service) *specs.Process {
	oom := s.Module.OOMScore
	caps := s.Capabilities // an empty list drops all
	return &specs.Process{
		User:            specs.User{UID: s.UID, GID: s.GID, AdditionalGids: []uint32{}},
		Args:            s.Command,
		Env:             append([]string{defaultPath, "HOME=/", "LANG=C.UTF-8"}, s.Env...),
		Cwd:             "/",
		NoNewPrivileges: true,
		OOMScoreAdj:     &oom,
		Rlimits: []specs.POSIXRlimit{
			{Type: "RLIMIT_NOFILE", Hard: openFiles, Soft: openFiles},
			{Type: "RLIMIT_CORE", Hard: 0, Soft: 0},
		},
		Capabilities: &specs.LinuxCapabilities{
			Bounding: caps, Effective: caps, Inheritable: caps, Permitted: caps, Ambient: caps,
		},
	}
}

// newMounts lists what is mounted in the container, in order. There is no /sys: nothing in it is a service's business.
func newMounts(s *plan.Service, at places) []specs.Mount {
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "mode=755", "size=65536"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
		inMemory("/dev/shm", 0, 0, "1777"),
		readOnly(at.resolv, "/etc/resolv.conf"),
		readOnly(at.hosts, "/etc/hosts"),
	}
	for _, dir := range s.Tmpfs {
		mode := "0755"
		if path.Base(dir) == "tmp" {
			mode = "1777"
		}
		mounts = append(mounts, inMemory(dir, s.UID, s.GID, mode))
	}
	// After the folders in memory, since /run may be one.
	if len(s.Module.Templates) > 0 {
		mounts = append(mounts, readOnly(at.config, configAt))
	}
	if len(s.Module.Secrets) > 0 {
		mounts = append(mounts, readOnly(at.secrets, secretsAt))
	}
	for _, v := range s.Module.Volumes {
		mounts = append(mounts, specs.Mount{
			Destination: v.Path, Source: at.volumes[v.Name], Type: "bind",
			Options: []string{"bind", "rw", "nosuid", "nodev", "noexec"},
		})
	}
	return mounts
}

func inMemory(dir string, uid, gid uint32, mode string) specs.Mount {
	return specs.Mount{Destination: dir, Type: "tmpfs", Source: "tmpfs", Options: []string{
		"nosuid", "nodev", "noexec", "mode=" + mode, "size=" + strconv.Itoa(tmpfsBytes),
		"uid=" + strconv.Itoa(int(uid)), "gid=" + strconv.Itoa(int(gid)),
	}}
}

func readOnly(source, at string) specs.Mount {
	return specs.Mount{Destination: at, Source: source, Type: "bind",
		Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"}}
}

// newResources bounds one service. The module as a whole is bounded one level above. There is no memory.high: without swap
// it only makes a service that needs too much crawl, and one that crawls is not restarted.
func newResources(s *plan.Service) *specs.LinuxResources {
	return &specs.LinuxResources{
		Unified: map[string]string{
			"memory.max":       strconv.FormatInt(s.MemoryMax, 10),
			"memory.swap.max":  "0",
			"memory.oom.group": "1", // half a service is worse than none: it would not be restarted
			"pids.max":         strconv.FormatInt(s.Module.PIDsMax, 10),
		},
		Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
	}
}
