package boot

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	silence     = 30 * time.Second // after which a supervisor counts as hung, and the watchdog gets nothing
	tickTime    = 5 * time.Second
	crashWindow = 10 * time.Minute
	maxCrashes  = 10 // in crashWindow; then the machine is reset
	maxBackoff  = 30 * time.Second
)

// keeper decides about the supervisor by what it does and when. It has no clock of its own.
type keeper struct {
	lastStart time.Time
	lastBeat  time.Time // of any supervisor since the boot; at first, the boot
	crashes   []time.Time
	end       int // command for reboot(2), once a supervisor has begun to end the box; 0 before
}

// What a beat says besides that the supervisor lives: it is ending the box.
const (
	beatPowerOff = 'o'
	beatReboot   = 'r'
)

func (k *keeper) started(now time.Time) { k.lastStart = now }

func (k *keeper) beat(b byte, now time.Time) {
	k.lastBeat = now
	switch b {
	case beatPowerOff:
		k.end = unix.LINUX_REBOOT_CMD_POWER_OFF
	case beatReboot:
		k.end = unix.LINUX_REBOOT_CMD_RESTART
	}
}

// feeds tells whether the watchdog may be fed. A supervisor that is started again and again without ever answering
// starves it.
func (k *keeper) feeds(now time.Time) bool { return now.Sub(k.lastBeat) < silence }

// silent tells whether the supervisor that runs has answered for too long with nothing.
func (k *keeper) silent(now time.Time) bool {
	return now.Sub(k.lastBeat) >= silence && now.Sub(k.lastStart) >= silence
}

// crashed notes a crash and returns how long to wait before the next start, or false if there were too many.
func (k *keeper) crashed(now time.Time) (time.Duration, bool) {
	recent := k.crashes[:0]
	for _, c := range k.crashes {
		if now.Sub(c) < crashWindow {
			recent = append(recent, c)
		}
	}
	k.crashes = append(recent, now)
	n := len(k.crashes)
	return min(time.Second<<(n-1), maxBackoff), n < maxCrashes
}
