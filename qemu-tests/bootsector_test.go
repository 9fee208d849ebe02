package qemutests

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// bootSector is a system of 135 bytes. It counts its boots in the first byte of the disk's second sector, prints
// "boot sector started, time N" on the first serial line, waits for the ACPI power button (bit 8 of PM1_STS, which q35
// has at port 0x600 under SeaBIOS) and turns the machine off (SLP_EN in PM1_CNT):
//
//	        cli; xor ax,ax; mov ds,ax; mov es,ax; mov ss,ax; mov sp,0x7c00; cld; sti
//	        mov ah,0x42; mov si,packet; int 0x13       ; read sector 1 to 0x7e00
//	        inc byte [0x7e00]
//	        mov ax,0x4300; mov si,packet; int 0x13     ; write it back
//	        mov al,[0x7e00]; add al,'0'; mov [digit],al
//	        mov dx,0x602; mov ax,0x100; out dx,ax      ; PM1_EN: power button
//	        mov si,text
//	print:  mov dx,0x3fd
//	wait:   in al,dx; test al,0x20; jz wait
//	        lodsb; test al,al; jz done
//	        mov dx,0x3f8; out dx,al; jmp print
//	done:   mov dx,0x600
//	button: in ax,dx; test ah,1; jz button
//	        mov dx,0x604; mov ax,0x2000; out dx,ax     ; S5
//	off:    hlt; jmp off
//	packet: db 16,0,1,0; dw 0x7e00,0; dq 1
//	text:   db "boot sector started, time "
//	digit:  db 0,13,10,0
const bootSector = `fa31c08ed88ec08ed0bc007cfcfbb442be597ccd13fe06007eb80043be597ccd13a0007e0430a2837cba0206b80001ef
be697cbafd03eca82074fbac84c07406baf803eeebedba0006edf6c40174faba0406b80020eff4ebfd10000100007e00
000100000000000000626f6f7420736563746f7220737461727465642c2074696d6520000d0a00`

// bootDisk makes a raw image of 1 MiB that boots bootSector.
func bootDisk(t *testing.T) string {
	t.Helper()
	code, err := hex.DecodeString(strings.ReplaceAll(bootSector, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	disk := make([]byte, 1<<20)
	copy(disk, code)
	disk[510], disk[511] = 0x55, 0xaa
	file := filepath.Join(t.TempDir(), "boot.raw")
	if err := os.WriteFile(file, disk, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
