// Package qr draws QR codes (ISO/IEC 18004) of links: on posters, and on screens for telephones. The link can be read with
// a quarter of the drawing covered.
package qr

import (
	"fmt"
	"strings"

	"github.com/skip2/go-qrcode"
)

func encode(link string) (*qrcode.QRCode, error) {
	code, err := qrcode.New(link, qrcode.High)
	if err != nil {
		return nil, fmt.Errorf("cannot make a QR code of %q: %w", link, err)
	}
	return code, nil
}

// PNG is the QR code of a link with size pixels on each side, the white border included.
func PNG(link string, size int) ([]byte, error) {
	code, err := encode(link)
	if err != nil {
		return nil, err
	}
	return code.PNG(size)
}

// SVG is the QR code of a link as a drawing that prints sharp at any size, the white border included.
func SVG(link string) ([]byte, error) {
	code, err := encode(link)
	if err != nil {
		return nil, err
	}
	rows := code.Bitmap()
	var path strings.Builder
	for y, row := range rows {
		for x, dark := range row {
			if dark {
				fmt.Fprintf(&path, "M%d %dh1v1h-1z", x, y)
			}
		}
	}
	return fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %[1]d" shape-rendering="crispEdges">`+
		`<path fill="#fff" d="M0 0h%[1]dv%[1]dH0z"/><path d="%s"/></svg>`+"\n", len(rows), path.String()), nil
}
