package boot

import (
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"allotment/init/boot/kmod"
	"allotment/init/boot/uevent"
)

// watchdogTimeout, in seconds, is how long the hardware waits for PID 1.
const watchdogTimeout = 60

// watchdogVariable hands the open descriptor from the first stage to the second.
const watchdogVariable = "ALLOTMENT_WATCHDOG"

// watchdogDrivers are the modules that drive watchdogs, or make the devices that these drive.
var watchdogDrivers = []string{
	"bcm2835_wdt", "hpwdt", "i2c_i801", "i6300esb", "iTCO_wdt", "lpc_ich", "sbsa_gwdt", "sp5100_tco", "wdat_wdt",
}

// watchdog resets the machine if it is not fed. Nobody stops it: a PID 1 that ends leaves it running. One with fd -1 is
// none.
type watchdog struct{ fd int }

// startWatchdog starts the hardware's watchdog, or else the kernel's.
func startWatchdog(l *kmod.Loader) watchdog {
	loadWatchdogDrivers(l)
	w, err := openWatchdog()
	if err != nil {
		if err := l.Load("softdog"); err != nil {
			logf("%v", err)
		}
		w, err = openWatchdog()
	}
	if err != nil {
		logf("no watchdog: %v", err)
	}
	return w
}

// loadWatchdogDrivers loads the drivers for which there are devices, again as long as that makes new devices.
func loadWatchdogDrivers(l *kmod.Loader) {
	var loaded []string
	for more := true; more; {
		more = false
		for _, alias := range uevent.Modaliases("/sys/devices") {
			for _, name := range l.Index().Find(alias) {
				if !slices.Contains(watchdogDrivers, name) || slices.Contains(loaded, name) {
					continue
				}
				more = true
				loaded = append(loaded, name)
				if err := l.Load(name); err != nil {
					logf("%v", err)
				}
			}
		}
	}
}

func openWatchdog() (watchdog, error) {
	fd, err := unix.Open("/dev/watchdog0", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return watchdog{-1}, err
	}
	if err := unix.IoctlSetPointerInt(fd, unix.WDIOC_SETTIMEOUT, watchdogTimeout); err != nil {
		logf("the watchdog keeps its own timeout: %v", err)
	}
	w := watchdog{fd}
	w.feed()
	return w, nil
}

// feed starts the timeout anew.
func (w watchdog) feed() {
	if w.fd >= 0 {
		_ = unix.IoctlWatchdogKeepalive(w.fd)
	}
}

// passOn keeps the descriptor open over exec, and returns the environment by which takeWatchdog finds it.
func (w watchdog) passOn() []string {
	if w.fd < 0 {
		return nil
	}
	if _, err := unix.FcntlInt(uintptr(w.fd), unix.F_SETFD, 0); err != nil {
		return nil
	}
	return []string{watchdogVariable + "=" + strconv.Itoa(w.fd)}
}

// takeWatchdog takes over what the first stage passed on.
func takeWatchdog(getenv func(string) string) watchdog {
	fd, err := strconv.Atoi(getenv(watchdogVariable))
	if err != nil {
		return watchdog{-1}
	}
	unix.CloseOnExec(fd)
	return watchdog{fd}
}
