package console

import (
	"fmt"
	"io"
	"strings"

	"github.com/skip2/go-qrcode"
	"golang.org/x/sys/unix"
)

// picture draws a text as a QR code of half blocks, two rows of it in each line. A text that is too long has none.
func picture(text string) []string {
	if text == "" {
		return nil
	}
	q, err := qrcode.New(text, qrcode.Low)
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSuffix(q.ToSmallString(false), "\n"), "\n")
}

// textWidth is how many columns the lines beside a picture need at least.
const textWidth = 40

// place puts the picture at the right edge of a display of that size, with the cursor where it was; nothing if there is no room.
func place(picture []string, rows, columns int) string {
	if len(picture) == 0 {
		return ""
	}
	width := len([]rune(picture[0]))
	if len(picture) > rows || width+textWidth > columns {
		return ""
	}
	var b strings.Builder
	b.WriteString("\x1b7")
	for i, line := range picture {
		fmt.Fprintf(&b, "\x1b[%d;%dH%s", i+1, columns-width+1, line)
	}
	return b.String() + "\x1b8"
}

// size is that of the display, nothing if it cannot be known.
func size(w io.Writer) (rows, columns int) {
	f, ok := w.(interface{ Fd() uintptr })
	if !ok {
		return 0, 0
	}
	s, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return int(s.Row), int(s.Col)
}
