// Command probe is what the tests run as a module to see what a module can do. It answers POST .../try with what happened
// when it tried something, and listens on a few ports, so that others can try to reach it:
//
//	probe serve              be a service: HTTP on 8080, TCP on 7001 and 7002, UDP on 7003
//	probe serve-also PORT    HTTP alone; the first service passes on to it what is asked with "on"
//	probe try WHAT ARG...    try one thing and print the answer
//	probe sleep              be there for an hour
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Order is what the probe is asked to try.
type Order struct {
	What string   `json:"what"`
	Args []string `json:"args,omitempty"`
	On   string   `json:"on,omitempty"` // port of another service of the module that is to try it
}

// Answer is what came of it.
type Answer struct {
	Worked bool   `json:"worked"`
	Errno  string `json:"errno,omitempty"` // name, such as EPERM
	Text   string `json:"text"`            // the error, or what there is to say
}

// attempt is something that can be tried. It returns no error if it worked.
type attempt struct {
	name string
	do   func(args []string) (string, error)
}

func main() {
	inherited := openFiles() // before there are any of our own
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: probe serve | serve-also PORT | try WHAT ARG...")
		os.Exit(2)
	}
	all := slices.Concat(networkAttempts(), kernelAttempts(), fileAttempts(), loadAttempts(), []attempt{
		{"inherited-files", func([]string) (string, error) { return strings.Join(inherited, "\n"), nil }},
		{"report", report},
	})
	var err error
	switch os.Args[1] {
	case "serve":
		err = serve(all, "8080", true)
	case "serve-also":
		err = serve(all, os.Args[2], false)
	case "try":
		err = json.NewEncoder(os.Stdout).Encode(try(all, Order{What: os.Args[2], Args: os.Args[3:]}))
	case "sleep":
		time.Sleep(time.Hour)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// try does what is ordered.
func try(all []attempt, o Order) Answer {
	i := slices.IndexFunc(all, func(a attempt) bool { return a.name == o.What })
	if i < 0 {
		return Answer{Text: "no such attempt: " + o.What}
	}
	text, err := all[i].do(o.Args)
	if err == nil {
		return Answer{Worked: true, Text: text}
	}
	a := Answer{Text: err.Error()}
	var errno unix.Errno
	if errors.As(err, &errno) {
		a.Errno = unix.ErrnoName(errno)
	}
	var timeout net.Error
	if a.Errno == "" && errors.As(err, &timeout) && timeout.Timeout() {
		a.Errno = "ETIMEDOUT"
	}
	return a
}

func serve(all []attempt, port string, listen bool) error {
	if listen {
		if err := offerPorts(); err != nil {
			return err
		}
	}
	born := time.Now()
	fmt.Printf("probe: born, process %d\n", os.Getpid())
	handler := http.NewServeMux()
	handler.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%d\n", born.UnixNano()) // tells one life of the service from the next
	})
	handler.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		var o Order
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if on := o.On; on != "" {
			o.On = ""
			passOn(w, on, o)
			return
		}
		json.NewEncoder(w).Encode(try(all, o))
	})
	return http.ListenAndServe(":"+port, handler)
}

// passOn lets another service of the module answer.
func passOn(w http.ResponseWriter, port string, o Order) {
	b, _ := json.Marshal(o)
	resp, err := http.Post("http://127.0.0.1:"+port+"/", "application/json", bytes.NewReader(b))
	if err != nil {
		json.NewEncoder(w).Encode(Answer{Text: "the other service: " + err.Error(), Errno: "GONE"})
		return
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		panic(http.ErrAbortHandler) // so that half an answer is not taken for one
	}
}
