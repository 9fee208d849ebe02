package provider

import "bytes"

// Structures of SMBIOS (DMTF DSP0134, 6.1): type, length of the formatted part, handle (2 bytes), the formatted part, and texts
// that each end with a zero, of which the last has a second one.
const (
	headerSize = 4
	typeOEM    = 11 // 7.12: texts that whoever made the machine likes to hand over
	typeEnd    = 127
)

// oemStrings are the texts of all structures of type 11 in the table.
func oemStrings(table []byte) []string {
	var all []string
	for len(table) >= headerSize {
		kind, size := table[0], int(table[1])
		if size < headerSize || size > len(table) || kind == typeEnd {
			break
		}
		rest := table[size:]
		end := bytes.Index(rest, []byte{0, 0})
		if end < 0 {
			break
		}
		if kind == typeOEM {
			for _, s := range bytes.Split(rest[:end], []byte{0}) {
				all = append(all, string(s))
			}
		}
		table = rest[end+2:]
	}
	return all
}
