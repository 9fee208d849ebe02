package fat32

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
)

const (
	longNameUnits   = 13 // UTF-16 units in one entry
	lastLongName    = 0x40
	forbidden       = `"*/:<>?\|`
	shortForbidden  = ` +,;=[].`
	maxLongNameSize = 255
)

// checkName refuses names that FAT cannot hold.
func checkName(name string) error {
	for _, r := range name {
		if r < 0x20 || r > 0x7e || strings.ContainsRune(forbidden, r) {
			return fmt.Errorf("name %q has the character %q", name, r)
		}
	}
	if name == "" || len(name) > maxLongNameSize || strings.HasSuffix(name, ".") || strings.HasSuffix(name, " ") {
		return fmt.Errorf("name %q is empty, too long, or ends in a dot or space", name)
	}
	return nil
}

// padName is a name of at most 11 characters as an entry holds it.
func padName(name string) [11]byte {
	b := [11]byte([]byte("           "))
	copy(b[:], name)
	return b
}

// shortName returns the 8.3 name under which a file is filed, different from all in taken. Exact tells that it says all
// that name says.
func shortName(name string, taken map[[11]byte]bool) (short [11]byte, exact bool) {
	upper := strings.ToUpper(name)
	base, ext := upper, ""
	if dot := strings.LastIndexByte(upper, '.'); dot > 0 {
		base, ext = upper[:dot], upper[dot+1:]
	}
	clean := func(s string) string {
		return strings.Map(func(r rune) rune {
			if strings.ContainsRune(shortForbidden, r) {
				return -1
			}
			return r
		}, s)
	}
	cleanBase, cleanExt := clean(base), clean(ext)
	if cleanBase == base && cleanExt == ext && len(base) <= 8 && len(ext) <= 3 {
		if short = join(base, ext); !taken[short] {
			return short, upper == name
		}
	}
	cleanExt = cleanExt[:min(3, len(cleanExt))]
	for n := 1; ; n++ {
		tail := fmt.Sprintf("~%d", n)
		if short = join(cleanBase[:min(8-len(tail), len(cleanBase))]+tail, cleanExt); !taken[short] {
			return short, false
		}
	}
}

func join(base, ext string) [11]byte {
	b := padName(base)
	copy(b[8:], ext)
	return b
}

// longNameEntries are the entries that carry a long name before the entry with its short name, last part first.
func longNameEntries(name string, short [11]byte) []byte {
	units := utf16.Encode([]rune(name))
	if len(units)%longNameUnits != 0 {
		units = append(units, 0)
	}
	for len(units)%longNameUnits != 0 {
		units = append(units, 0xffff)
	}
	var b []byte
	for n := len(units) / longNameUnits; n > 0; n-- {
		e := make([]byte, entrySize)
		e[0] = byte(n)
		if n*longNameUnits == len(units) {
			e[0] |= lastLongName
		}
		e[11] = attrLongName
		e[13] = shortSum(short)
		for i, unit := range units[(n-1)*longNameUnits : n*longNameUnits] {
			binary.LittleEndian.PutUint16(e[unitOffset(i):], unit)
		}
		b = append(b, e...)
	}
	return b
}

// unitOffset is where in an entry the i-th unit of a long name lies.
func unitOffset(i int) int {
	switch {
	case i < 5:
		return 1 + 2*i
	case i < 11:
		return 14 + 2*(i-5)
	}
	return 28 + 2*(i-11)
}

// shortSum ties the entries of a long name to the short name behind them.
func shortSum(short [11]byte) byte {
	var sum byte
	for _, c := range short {
		sum = sum>>1 | sum<<7
		sum += c
	}
	return sum
}

// longName collects the parts of a long name while a folder is read.
type longName struct {
	units []uint16
	sum   byte
	next  byte // number of the part that must follow; 0: the short name
}

// add takes one entry.
func (l *longName) add(e []byte) error {
	n := e[0] &^ lastLongName
	if e[0]&lastLongName != 0 {
		*l = longName{sum: e[13], next: n}
	}
	if n == 0 || n > 20 || n != l.next || e[13] != l.sum {
		return errors.New("parts of a long name are out of order")
	}
	part := make([]uint16, 0, longNameUnits+len(l.units))
	for i := range longNameUnits {
		part = append(part, binary.LittleEndian.Uint16(e[unitOffset(i):]))
	}
	l.units, l.next = append(part, l.units...), n-1
	return nil
}

// take returns the name of the entry with the given short name, and forgets the parts.
func (l *longName) take(short [11]byte) (string, error) {
	defer func() { *l = longName{} }()
	if len(l.units) == 0 {
		return shortText(short), nil
	}
	if l.next != 0 || l.sum != shortSum(short) {
		return "", errors.New("a long name does not belong to its short name")
	}
	for i, u := range l.units {
		if u == 0 {
			l.units = l.units[:i]
			break
		}
	}
	return string(utf16.Decode(l.units)), nil
}

// shortText is a short name as people write it.
func shortText(short [11]byte) string {
	base, ext := strings.TrimRight(string(short[:8]), " "), strings.TrimRight(string(short[8:]), " ")
	if ext != "" {
		base += "." + ext
	}
	return base
}
