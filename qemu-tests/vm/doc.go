// Package vm drives QEMU machines for tests and for allot run: it starts one on a disk image that is never written,
// follows its serial console and its events, answers for its end, and measures the CPU time that it takes.
//
// Machines are emulated (TCG), so that they run wherever Go runs. Emulated time is no measure: wait for console lines
// and events, and leave the limits to guard against a machine that hangs.
package vm
