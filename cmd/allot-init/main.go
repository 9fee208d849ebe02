// Allot-init is PID 1: /init in the initramfs and /sbin/init on the root. As any other process it is the helper by which
// the kernel loads modules.
package main

import (
	"os"

	"allotment/init/boot"
)

func main() {
	switch {
	case os.Getpid() != 1:
		os.Exit(boot.Modprobe(os.Args[1:]))
	case os.Args[0] == "/init":
		boot.Initramfs()
	default:
		boot.System()
	}
}
