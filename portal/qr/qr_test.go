package qr

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"image/png"
	"io"
	"strings"
	"testing"
)

const link = "https://portal.club.example/portal/register?invitation=abcdefghijklmnopqrstuvwxyz"

// TestSameDrawing compares the squares of both forms.
func TestSameDrawing(t *testing.T) {
	drawing, err := SVG(link)
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(bytes.NewReader(drawing)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	var side int
	if _, err := fmt.Sscanf(string(drawing[bytes.Index(drawing, []byte("viewBox")):]), `viewBox="0 0 %d`, &side); err != nil {
		t.Fatal(err)
	}
	const scale = 4
	raw, err := PNG(link, side*scale)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(raw))
	if err != nil || picture.Bounds().Dx() != side*scale {
		t.Fatalf("%v, error %v", picture.Bounds(), err)
	}
	dark := 0
	for y := range side {
		for x := range side {
			r, _, _, _ := picture.At(x*scale+scale/2, y*scale+scale/2).RGBA()
			drawn := strings.Contains(string(drawing), fmt.Sprintf("M%d %dh1v1h-1z", x, y))
			if drawn != (r == 0) {
				t.Fatalf("the forms differ at %d, %d", x, y)
			}
			if drawn {
				dark++
			}
		}
	}
	if dark < side*side/4 || dark > side*side*3/4 {
		t.Errorf("%d of %d squares are dark", dark, side*side)
	}
}

func TestTooLong(t *testing.T) {
	long := strings.Repeat("x", 4000)
	if _, err := SVG(long); err == nil {
		t.Error("there is a drawing")
	}
	if _, err := PNG(long, 100); err == nil {
		t.Error("there is a picture")
	}
}
