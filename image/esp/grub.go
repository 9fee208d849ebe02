package esp

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"allotment/image"
)

// MaxTries is how often GRUB starts a release on trial.
const MaxTries = 3

// GRUBConfig is GRUB's configuration. It has no menu, never waits for a person, and is the same in all releases: which one
// is started is in the environment. GRUB's script knows no arithmetic, hence the chain that counts. A start is counted
// before it happens, and where that cannot be written the trial does not take place. GRUB checks no signature; the hashes
// only show a damaged disk before the kernel does.
const GRUBConfig = `# Made by allot; see docs/formats/esp.md.
if serial --unit=0 --speed=115200; then
  terminal_input console serial
  terminal_output console serial
fi

set reason=no-release

function start {
  set folder=$prefix/$1
  set arguments=
  set reason=damaged-boot-files
  if hashsum --hash sha256 --check $folder/SHA256SUMS --prefix $folder; then
    set reason=kernel-does-not-start
    source $folder/arguments.cfg
    if linux $folder/vmlinuz $arguments $2; then
      if initrd $folder/initrd; then
        boot
      fi
    fi
  fi
}

load_env --file $prefix/grubenv version previous trial tries
if [ -z "$version" ]; then
  load_env --file $prefix/committed version previous
fi

if [ -n "$trial" ]; then
  set left=
  if [ "$tries" = 3 ]; then set left=2; fi
  if [ "$tries" = 2 ]; then set left=1; fi
  if [ "$tries" = 1 ]; then set left=0; fi
  if [ -n "$left" ]; then
    set tries=$left
    if save_env --file $prefix/grubenv tries; then
      start $trial allotment.trial=yes
    fi
  fi
fi
if [ -n "$version" ]; then
  start $version
fi
if [ -n "$previous" ]; then
  start $previous
fi

echo "BOOT-FAIL stage=grub reason=$reason"
echo "Starting again in 10 seconds."
sleep 10
reboot
`

// ArgumentsFile is the content of Arguments for a kernel command line.
func ArgumentsFile(cmdline string) ([]byte, error) {
	if strings.ContainsAny(cmdline, "'\n") {
		return nil, fmt.Errorf("cannot write GRUB configuration: command line %q has a quote or line break", cmdline)
	}
	return fmt.Appendf(nil, "set arguments='%s'\n", cmdline), nil
}

// Environment is what GRUB starts: on trial first, while tries are left; then the committed version; then the one before.
type Environment struct {
	Version  image.Version // committed
	Previous image.Version // committed before; may be empty
	Trial    image.Version // empty: nothing is on trial
	Tries    int           // left of MaxTries
}

const (
	environmentSize   = 1024 // bytes; GRUB makes and wants no other
	environmentSector = 512  // what a disk writes whole or not at all
	environmentHead   = "# GRUB Environment Block\n"
)

// Marshal is the environment as GRUB's environment block. All that ever changes is in the first sector.
func (e Environment) Marshal() []byte {
	var b bytes.Buffer
	b.WriteString(environmentHead)
	fmt.Fprintf(&b, "version=%s\n", e.Version)
	if e.Previous != "" {
		fmt.Fprintf(&b, "previous=%s\n", e.Previous)
	}
	if e.Trial != "" {
		fmt.Fprintf(&b, "trial=%s\ntries=%d\n", e.Trial, e.Tries)
	}
	return append(b.Bytes(), bytes.Repeat([]byte("#"), environmentSize-b.Len())...)
}

// Sector is the first sector of the environment block.
func (e Environment) Sector() [environmentSector]byte { return [environmentSector]byte(e.Marshal()) }

// ParseEnvironment reads an environment block that Marshal made and GRUB may have written since.
func ParseEnvironment(b []byte) (Environment, error) {
	var e Environment
	if len(b) != environmentSize || !bytes.HasPrefix(b, []byte(environmentHead)) {
		return e, fmt.Errorf("cannot read GRUB's environment: no block of %d bytes", environmentSize)
	}
	var err error
	for line := range strings.SplitSeq(string(b[len(environmentHead):]), "\n") {
		name, value, _ := strings.Cut(line, "=")
		switch {
		case strings.HasPrefix(line, "#"):
			continue
		case name == "version":
			e.Version, err = image.ParseVersion(value)
		case name == "previous":
			e.Previous, err = image.ParseVersion(value)
		case name == "trial":
			e.Trial, err = image.ParseVersion(value)
		case name == "tries":
			if e.Tries, err = strconv.Atoi(value); e.Tries < 0 || e.Tries > MaxTries {
				err = fmt.Errorf("%d tries of %d", e.Tries, MaxTries)
			}
		default:
			err = fmt.Errorf("line %q", line)
		}
		if err != nil {
			return Environment{}, fmt.Errorf("cannot read GRUB's environment: %w", err)
		}
	}
	if e.Version == "" {
		return Environment{}, fmt.Errorf("cannot read GRUB's environment: it names no version")
	}
	return e, nil
}
