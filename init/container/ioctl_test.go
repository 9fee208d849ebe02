package container

import (
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// allowsIoctl does what the kernel's filter does for one request.
func allowsIoctl(rules []specs.LinuxSyscall, request uint64) bool {
	return slices.ContainsFunc(rules, func(r specs.LinuxSyscall) bool {
		return r.Action == specs.ActAllow && slices.Contains(r.Names, "ioctl") &&
			!slices.ContainsFunc(r.Args, func(a specs.LinuxSeccompArg) bool {
				return a.Index != 1 || a.Op != specs.OpMaskedEqual || request&a.Value != a.ValueTwo
			})
	})
}

func TestNoSubvolumesInVolumes(t *testing.T) {
	s, err := newSpec(service(t, nil), somewhere)
	if err != nil {
		t.Fatal(err)
	}
	rules := s.Linux.Seccomp.Syscalls
	forbidden := map[string]uint64{
		"SUBVOL_CREATE": 0x5000940e, "SUBVOL_CREATE_V2": 0x50009418, "SNAP_CREATE": 0x50009401,
		"SNAP_CREATE_V2": 0x50009417, "the same with a bit that the kernel drops": 1<<32 | 0x5000940e,
	}
	for name, request := range forbidden {
		if allowsIoctl(rules, request) {
			t.Errorf("%s is allowed", name)
		}
	}
	for _, request := range []uint64{
		unix.FICLONE, unix.FICLONERANGE, unix.FIDEDUPERANGE, unix.TCGETS, unix.TIOCGWINSZ, unix.TIOCINQ, 0x5421,
		unix.FS_IOC_GETFLAGS, unix.SIOCGIFCONF, 0xffffffff, 0,
	} {
		if !allowsIoctl(rules, request) {
			t.Errorf("%#x is not allowed", request)
		}
	}
	// The twin: with the rule as it was, they can all be made.
	rules = append(rules, specs.LinuxSyscall{Names: []string{"read", "ioctl"}, Action: specs.ActAllow})
	for name, request := range forbidden {
		if !allowsIoctl(rules, request) {
			t.Errorf("the test does not see that %s is allowed", name)
		}
	}
}
