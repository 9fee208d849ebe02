package session

import (
	"net"
	"net/http"
	"strings"
)

// Host is the name of a host as cookies know it: without the port, in lower case.
func Host(hostport string) string {
	h := hostport
	if name, _, err := net.SplitHostPort(hostport); err == nil {
		h = name
	}
	return strings.TrimSuffix(strings.ToLower(strings.Trim(h, "[]")), ".")
}

// Client is the address of who asks: as the gateway tells it, which replaces what clients say, else the connection's.
func Client(r *http.Request) string {
	said := r.Header.Get("X-Forwarded-For")
	if i := strings.LastIndexByte(said, ','); i >= 0 {
		said = said[i+1:]
	}
	if ip := net.ParseIP(strings.TrimSpace(said)); ip != nil {
		return ip.String()
	}
	return Host(r.RemoteAddr)
}

// deviceNames are words of User-Agent headers with what people call the thing, the first that fits counts.
var (
	deviceNames = [][2]string{{"iPad", "iPad"}, {"iPhone", "iPhone"}, {"Android", "Android"}, {"CrOS", "Chromebook"},
		{"Windows", "Windows"}, {"Macintosh", "Mac"}, {"Linux", "Linux"}}
	browserNames = [][2]string{{"Edg", "Edge"}, {"OPR/", "Opera"}, {"Firefox/", "Firefox"}, {"FxiOS", "Firefox"},
		{"CriOS", "Chrome"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"}}
)

// Device is a browser and its machine in a few words, from a User-Agent header: a help for the eye, not a fact. It is
// empty where nothing is known. (An iPad that asks for desktop pages calls itself a Mac.)
func Device(agent string) string {
	var found []string
	for _, names := range [][][2]string{browserNames, deviceNames} {
		for _, n := range names {
			if strings.Contains(agent, n[0]) {
				found = append(found, n[1])
				break
			}
		}
	}
	return strings.Join(found, ", ")
}
