package boot

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"allotment/init/boot/kmod"
	"allotment/init/boot/uevent"
	"allotment/init/reaper"
)

const programs = "/usr/lib/allotment/"

// System is the second stage: PID 1 on the verified root. It does not return.
func System() {
	defer resetOnPanic("system")
	reset(system())
}

// system returns only if it fails.
func system() error {
	w := takeWatchdog(os.Getenv)
	w.feed()
	facts, err := ParseFacts(os.Getenv)
	if err := at("facts", err); err != nil {
		return err
	}
	if err := at("mounts", mountLate()); err != nil {
		return err
	}
	if err := at("hostname", unix.Sethostname([]byte("allotment"))); err != nil {
		return err
	}
	ignoreSignals()
	harden()
	useModprobe(programs + "allot-init")
	if err := at("modules", startDrivers()); err != nil {
		return err
	}
	facts.Trial = onTrial()
	s := supervisor{
		reaper:   reaper.New(),
		path:     programs + "allot-supervisor",
		env:      append(facts.Environ(), "PATH=/usr/sbin:/usr/bin", "HOME=/", "LANG=C.UTF-8"),
		watchdog: w,
	}
	command, err := s.keepAlive()
	if err := at("supervisor", err); err != nil {
		return err
	}
	return at("shutdown", shutdown(command, w))
}

// ignoreSignals makes Ctrl-Alt-Del a signal instead of a reset without a sync, and has no signal end PID 1. They are
// received and dropped rather than ignored, because every process that is started would inherit that.
func ignoreSignals() {
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF)
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1,
		unix.SIGUSR2, unix.SIGPWR)
}

// startDrivers loads drivers for the devices that there are and, from then on, for those that come. It returns before
// they are loaded: the supervisor waits for the devices that it needs.
func startDrivers() error {
	loader, err := kmod.Open()
	if err != nil {
		return err
	}
	events, err := uevent.Listen()
	if err != nil {
		return err
	}
	if err := loader.LoadAll("overlay"); err != nil { // every container wants it, and some at the same moment
		return err
	}
	go func() {
		defer resetOnPanic("modules")
		loadDrivers(loader, uevent.Modaliases("/sys/devices")...)
		debug.FreeOSMemory() // PID 1 reads megabytes of modules once, and then does next to nothing for months
		for {
			e, err := events.Next(-1)
			switch {
			case errors.Is(err, uevent.ErrLost):
				loadDrivers(loader, uevent.Modaliases("/sys/devices")...)
			case err != nil:
				logf("%v", err)
				return
			default:
				loadDrivers(loader, e.Env["MODALIAS"])
			}
		}
	}()
	return nil
}

// onTrial tells whether the boot loader counts this boot. systemd-boot says so by a variable (Boot Loader Interface);
// GRUB's configuration by a word on the command line.
func onTrial() bool {
	const counted = "/sys/firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
	if _, err := os.Stat(counted); err == nil {
		return true
	}
	b, _ := os.ReadFile("/proc/cmdline")
	v, _ := parameter(string(b), "allotment.trial")
	return v == "yes"
}

// sysctls harden the kernel and make its failures resets. Each says what differs from Debian's default.
var sysctls = [][2]string{
	{"kernel.panic", "5"},
	{"kernel.panic_on_oops", "1"},
	{"kernel.sysrq", "0"},
	{"kernel.kptr_restrict", "2"},
	{"kernel.dmesg_restrict", "1"},
	{"kernel.perf_event_paranoid", "3"},
	{"kernel.unprivileged_bpf_disabled", "1"},
	{"kernel.unprivileged_userns_clone", "0"},
	{"kernel.kexec_load_disabled", "1"},
	{"kernel.io_uring_disabled", "2"},
	{"kernel.yama.ptrace_scope", "3"},
	{"kernel.core_pattern", "|/nonexistent"}, // no core files: they would carry people's data
	{"dev.tty.ldisc_autoload", "0"},
	{"fs.suid_dumpable", "0"},
	{"fs.protected_symlinks", "1"},
	{"fs.protected_hardlinks", "1"},
	{"fs.protected_fifos", "2"},
	{"fs.protected_regular", "2"},
	{"vm.unprivileged_userfaultfd", "0"},
	{"vm.mmap_rnd_bits", "32"},
	{"net.core.bpf_jit_harden", "2"},
	{"net.ipv4.tcp_syncookies", "1"},
	{"net.ipv4.tcp_rfc1337", "1"},
	{"net.ipv4.conf.all.accept_redirects", "0"},
	{"net.ipv4.conf.default.accept_redirects", "0"},
	{"net.ipv4.conf.all.send_redirects", "0"},
	{"net.ipv4.conf.default.send_redirects", "0"},
	{"net.ipv4.conf.all.accept_source_route", "0"},
	{"net.ipv4.conf.default.accept_source_route", "0"},
	{"net.ipv6.conf.all.accept_redirects", "0"},
	{"net.ipv6.conf.default.accept_redirects", "0"},
	{"net.ipv6.conf.all.accept_source_route", "0"},
}

func harden() {
	for _, s := range sysctls {
		path := filepath.Join("/proc/sys", strings.ReplaceAll(s[0], ".", "/"))
		if err := os.WriteFile(path, []byte(s[1]), 0); err != nil {
			logf("cannot set %s: %v", s[0], err)
		}
	}
}

// supervisor is what is needed to keep the supervisor running.
type supervisor struct {
	reaper   *reaper.Reaper
	path     string
	env      []string
	watchdog watchdog
}

// keepAlive starts the supervisor whenever it does not run, until it asks for the end by its exit code; it returns the
// command for reboot(2) then. It fails when crashes come too often.
func (s *supervisor) keepAlive() (command int, err error) {
	k := keeper{lastBeat: time.Now()}
	for {
		code, err := s.runOnce(&k)
		if err != nil {
			return 0, err
		}
		switch {
		case code == 0:
			return unix.LINUX_REBOOT_CMD_POWER_OFF, nil
		case code == 100:
			return unix.LINUX_REBOOT_CMD_RESTART, nil
		case k.end != 0:
			logf("supervisor: exit code %d while it ended the box, going on with that", code)
			return k.end, nil
		}
		wait, ok := k.crashed(time.Now())
		if !ok {
			return 0, fmt.Errorf("crashed %d times in %v, the last time with exit code %d", maxCrashes, crashWindow, code)
		}
		logf("supervisor: exit code %d, starting it again in %v", code, wait)
		time.Sleep(wait)
	}
}

// runOnce runs the supervisor to its end and returns its exit code.
func (s *supervisor) runOnce(k *keeper) (int, error) {
	beats, beatsW, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer beats.Close()
	p, err := s.reaper.Start(reaper.Spec{
		Path: s.path, Env: s.env, Stdout: os.Stdout, Stderr: os.Stderr, Extra: []*os.File{beatsW},
	})
	beatsW.Close()
	if err != nil {
		return 0, err
	}
	k.started(time.Now())
	heard := make(chan byte)
	over := make(chan struct{})
	defer close(over)
	go func() {
		defer resetOnPanic("supervisor")
		for b := make([]byte, 64); ; {
			n, err := beats.Read(b)
			if err != nil {
				return // the supervisor or runOnce has closed its end
			}
			select {
			case heard <- b[n-1]:
			case <-over:
				return
			}
		}
	}()
	tick := time.NewTicker(tickTime)
	defer tick.Stop()
	for {
		select {
		case <-p.Done():
			return p.ExitCode(), nil
		case b := <-heard:
			k.beat(b, time.Now())
		case <-tick.C:
		}
		now := time.Now()
		if k.feeds(now) {
			s.watchdog.feed()
		}
		if k.silent(now) {
			logf("supervisor: silent for %v, killing it", silence)
			_ = p.Signal(unix.SIGKILL)
		}
	}
}
