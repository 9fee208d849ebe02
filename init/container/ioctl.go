package container

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// btrfsRequests is the type, in the second byte, of btrfs' ioctl requests. Anybody who may write to a folder may make
// subvolumes and snapshots in it, which have no limit of their own: a module would take more than its volume's quota.
const btrfsRequests = 0x94

// cloneRequests have the type too, but copy files within a volume, which counts: FICLONE, FICLONERANGE, FIDEDUPERANGE.
var cloneRequests = []uint64{unix.FICLONE, unix.FICLONERANGE, unix.FIDEDUPERANGE}

// narrowIoctl replaces the rule that allows ioctl(2) by some that leave out btrfs' own requests. The filter has no "is not
// equal" for a part of an argument; but what is not the type differs from it in one of eight bits.
func narrowIoctl(rules []specs.LinuxSyscall) []specs.LinuxSyscall {
	rules = slices.Clone(rules)
	for i, r := range rules {
		rules[i].Names = slices.DeleteFunc(slices.Clone(r.Names), func(name string) bool { return name == "ioctl" })
	}
	rules = slices.DeleteFunc(rules, func(r specs.LinuxSyscall) bool { return len(r.Names) == 0 })
	for bit := uint64(1 << 8); bit < 1<<16; bit <<= 1 {
		rules = append(rules, allowIoctl(bit, ^uint64(btrfsRequests<<8)&bit))
	}
	for _, request := range cloneRequests {
		rules = append(rules, allowIoctl(0xffffffff, request)) // the kernel takes no notice of the upper half
	}
	return rules
}

// allowIoctl allows requests whose bits in the mask have the value.
func allowIoctl(mask, value uint64) specs.LinuxSyscall {
	return specs.LinuxSyscall{
		Names: []string{"ioctl"}, Action: specs.ActAllow,
		Args: []specs.LinuxSeccompArg{{Index: 1, Value: mask, ValueTwo: value, Op: specs.OpMaskedEqual}},
	}
}
